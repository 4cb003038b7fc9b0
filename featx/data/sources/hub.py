"""Data sets of the Hugging Face Hub: their names, and the folder in which ``datasets`` prepares them.

featx never runs the code of a data set: it never passes ``trust_remote_code``, and reads what ``datasets`` prepared as Arrow
files.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from featx.data.sources.hub_network import offline_without_network
from featx.data.sources.saved_folder import is_saved
from featx.errors import DatasetError
from featx.io.atomic import keep
from featx.system import home
from featx.text import brief, from_utf8, listed, to_utf8

FORM = "hf://ORG/NAME, and after it /CONFIGURATION, @SPLIT and ?revision=REVISION where they are needed"
"""How a data set is named."""

_PREFIX = "hf://"
_NAME = re.compile(r"\w[\w.-]*")
_FOLDER, _MOST_RECORDS = "hub", 500


@dataclass(frozen=True)
class HubName:
    """The name of a data set on the hub.

    Attributes:
        repo: ``org/name``, or the name alone of a few old data sets.
        config: the configuration, or None for the only one or the default one.
        splits: the splits that are meant; () for all.
        revision: a branch, a tag or a commit; None for the newest.
    """

    repo: str
    config: str | None = None
    splits: tuple[str, ...] = ()
    revision: str | None = None

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        splits = f"@{'+'.join(self.splits)}" if self.splits else ""
        revision = f"?revision={quote(self.revision, safe='/')}" if self.revision else ""
        return f"{_PREFIX}{self.repo}{config}{splits}{revision}"

    @property
    def short(self) -> str:
        """The name without its organisation, with the configuration and the splits."""
        return "-".join([self.repo.rpartition("/")[2], *([self.config] if self.config else []), *self.splits])


def is_hub_name(text: str) -> bool:
    """Whether a location is a data set of the hub, and no file or folder in one of its repositories.

    Examples:
        >>> is_hub_name("hf://beans"), is_hub_name("hf://datasets/org/name"), is_hub_name("hf://datasets/org/name/a.parquet")
        (True, True, False)
    """
    if not text.lower().startswith(_PREFIX):
        return False
    first, _, rest = re.split(r"[?#]", text[len(_PREFIX) :])[0].strip("/").partition("/")
    if first == "datasets":
        return bool(re.fullmatch(r"[^/@]+(/[^/@]+)?(@(refs/(convert|pr)/)?[^/]+)?", rest))
    return first not in ("buckets", "spaces", "models", "")


def hub_name(text: str) -> HubName:
    """Parse the name of a data set.

    ``hf://datasets/org/name@revision`` is the form of ``huggingface_hub``, in which a revision stands after the ``@``.

    Raises:
        DatasetError: it is no such name.

    Examples:
        >>> hub_name("hf://uoft-cs/cifar100@train+test")
        HubName(repo='uoft-cs/cifar100', config=None, splits=('train', 'test'), revision=None)
        >>> print(hub_name("hf://datasets/org/name@v1.0"))
        hf://org/name?revision=v1.0
    """
    body, _, query = text[len(_PREFIX) :].partition("?")
    body, _, after = body.strip("/").partition("@")
    parts = [unquote(part) for part in body.split("/")]
    revision = next(iter(parse_qs(query).get("revision", [])), None)
    if parts[0] == "datasets":
        found = HubName("/".join(parts[1:]), revision=revision or unquote(after) or None)
    else:
        splits = tuple(filter(None, after.split("+"))) if after else ()
        found = HubName("/".join(parts[:2]), "/".join(parts[2:]) or None, splits, revision)
    wrong = [part for part in found.repo.split("/") if not _NAME.fullmatch(part)]
    wrong += [split for split in found.splits if not re.fullmatch(r"\w+(\.\w+)*", split)]
    if wrong or (query and not re.fullmatch(r"revision=[^&]+", query)) or ("@" in text and not after):
        raise DatasetError(
            f"{text[:200]} does not name a data set{f' ({wrong[0]!r})' if wrong else ''}; expected {FORM}"
        )
    return found


def prepared_folder(name: HubName, *, newest: bool = True) -> tuple[Path, tuple[str, ...]]:
    """The folder in which ``datasets`` has prepared a data set, downloaded first if it is not there.

    Args:
        name: of the data set.
        newest: ask the hub whether there is a newer one; otherwise what was found before counts, if it is still there.

    Returns:
        The folder, and notes for the user.

    Raises:
        DatasetError: ``datasets`` is not installed; or there is no such data set, or no access to it, or no network.
    """
    record = f"{_FOLDER}/{hashlib.sha256(str(name).encode()).hexdigest()[:32]}"
    if not newest:
        with contextlib.suppress(OSError):
            folder = Path(from_utf8((home() / record).read_bytes()))
            if is_saved(folder):
                return folder, ()
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"reading {name} needs datasets: pip install 'featx[hf]'") from error
    try:
        with _quiet(datasets), offline_without_network():
            builder = datasets.load_dataset_builder(name.repo, name.config, revision=name.revision)
            builder.download_and_prepare()
    except Exception as error:  # datasets and huggingface_hub raise what their many libraries raise
        raise DatasetError(_explained(name, error, datasets)) from error
    folder = Path(builder.cache_dir)
    keep(record, to_utf8(str(folder)), most=_MOST_RECORDS)
    return folder, tuple(_notes(name, builder, folder))


def version_of(folder: Path) -> str:
    """What tells the content of a prepared folder from another: the data set, configuration, version and commit."""
    return "/".join(folder.parts[-4:])


def _notes(name: HubName, builder: Any, folder: Path) -> Iterator[str]:
    """The note about a copy of the cache that stands in for the hub.

    Raises:
        DatasetError: it is of another revision than the one that is asked for.
    """
    if "packaged_modules.cache" not in type(builder).__module__:
        return
    if name.revision and re.fullmatch(r"[0-9a-f]{40}", name.revision) and folder.name != name.revision:
        raise DatasetError(
            f"{name}: the Hugging Face Hub cannot be reached, and the cache of this machine holds another commit alone, "
            f"{folder.name}"
        )
    yield f"{name}: the Hugging Face Hub cannot be reached, so the copy in the cache is used (commit {folder.name})"


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep ``datasets`` and its client of the hub from writing to stderr, except for bars of downloads on a terminal."""
    import huggingface_hub.utils

    logs = (datasets.logging, huggingface_hub.utils.logging)
    verbosities = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
    bars = datasets.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for log, verbosity in zip(logs, verbosities, strict=True):
            log.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


_UNREACHABLE = ("OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout", "ConnectionError", "Timeout")


def _explained(name: HubName, error: Exception, datasets: Any) -> str:
    """The line about an error of ``datasets``: what is wrong, and what to do."""
    chain = list(_causes(error))
    kinds, text = {type(each).__name__ for each in chain}, " ".join(str(each) for each in chain)
    page = f"https://huggingface.co/datasets/{name.repo}"
    login = "hf auth login, or the variable HF_TOKEN, grants access"
    if "GatedRepoError" in kinds or "is a gated dataset" in text:
        return f"{name} is gated: accept its terms at {page}; {login}"
    if "RevisionNotFoundError" in kinds or "Revision '" in text:
        return f"{name}: there is no revision {name.revision!r}; {page}/commits/main lists them"
    if "scripts are no longer supported" in text or "trust_remote_code" in text:
        return (
            f"{name} is made by a program of its own, which featx never runs; ?revision=refs/convert/parquet names its copy as "
            "Parquet, where the hub has one"
        )
    if "BuilderConfig" in text or "Config name is missing" in text or ("multiple" in text and "configurations" in text):
        return _about_configurations(name, datasets, text)
    if kinds & set(_UNREACHABLE) or "Couldn't reach" in text or "offline" in text.lower():
        return (
            f"{name}: the Hugging Face Hub cannot be reached, and no copy is in the cache of this machine "
            f"({datasets.config.HF_DATASETS_CACHE}); run once with a network and without HF_HUB_OFFLINE, or set HF_ENDPOINT to "
            "a mirror"
        )
    if "DatasetNotFoundError" in kinds or "RepositoryNotFoundError" in kinds:
        return f"there is no data set {name.repo!r} on the Hugging Face Hub, or it is private; {login}. Expected {FORM}"
    if kinds & {"EmptyDatasetError", "DataFilesNotFoundError"}:
        return f"{name} has no files that datasets can read"
    last = chain[-1]
    return f"{name} cannot be read: {type(last).__name__}: {brief(last)}"


def _about_configurations(name: HubName, datasets: Any, text: str) -> str:
    try:
        with _quiet(datasets):
            found = [str(each) for each in datasets.get_dataset_config_names(name.repo, revision=name.revision)]
    except Exception:  # the list is a help, whatever went wrong with it
        found = re.findall(r"'([^']+)'", text.partition("[")[2].partition("]")[0])
    which = f"no configuration {name.config!r}" if name.config else "no default configuration"
    example = HubName(name.repo, found[0], name.splits, name.revision) if found else None
    return f"{name} has {which}; it has {listed(found, 20) or 'others'}{f': name one as {example}' if example else ''}"


def _causes(error: Exception) -> Iterator[Exception]:
    found: BaseException | None = error
    for _ in range(10):
        if not isinstance(found, Exception):
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
