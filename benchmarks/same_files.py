"""Whether a refactoring changed no byte of any file, no key of any ``--json`` and no exit status. Prints one JSON line.

    python benchmarks/same_files.py 25ed01d
    python benchmarks/same_files.py 25ed01d --quick --checkpoint --allow-rewording
    python benchmarks/same_files.py 25ed01d --tree ../base

The commands of ``same_commands.py`` are run twice, by the code of a commit and by that of the working tree. Each side is a
folder of its own that lies, while its turn lasts, at the same place: so what is written has the same paths in it, and its bytes
can be compared as they are. After each command the files that it wrote, changed or removed are noted, so files that a later
command overwrites count too. An error, with exit status 1, is: another exit status, other keys (or another order of them) or
values of ``--json``, other CSV on stdout, and any file of other bytes or that one side alone has.

Times are measured, and so differ from run to run of the very same code. They alone are set aside: all else, of a commit against
itself, is equal to the byte. Set aside are

- of ``--json`` the values of ``MEASURED``; that a key is there still counts;
- in heads and models (.safetensors) the values of "seconds" and "at", and "sha256", which is over them too. That
  it is the digest that the format asks for is checked here for each file instead. The tensors, and all other bytes of the
  header, are compared;
- of a model's epochs (.csv) the column "seconds";
- the digits, which featx writes on first use, get one modification time, since feature files keep it.

A network as ONNX, which featx keeps in its home, says which line of which module each operation comes from, names its tensors
by Python's attributes, and has a checksum of all that in its name. It is compared without these, and counts as equal but for
times where they alone differ.

Sentences that are worded anew (the strings of ``SENTENCES``, in --json, heads and models) stand apart, in ``reworded``. They
are errors too, unless ``--allow-rewording`` is given. Pictures and pages (.png, .html) and text for people (stdout without
--json, stderr, --help) are compared but for times, and differences are only told, in ``told``. The picture of ``rank`` always
is there: it shows speeds. Not run: what needs a GPU or a download, several processes, and --tensorboard, whose files are named
after time, host and process.

The first command of each kind is started as a user does it, ``python -m featx``; the others in copies of one process that has
torch already (``forked.py``), which halves the time.

``--checkpoint``: a fine-tuning by the commit's code is killed after its first epoch; then both sides go on from it. The working
tree must continue to the same model, or refuse (exit status 1 and a message); starting anew without a word is an error.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load
from same_commands import FIRST, commands, write_inputs, write_tables

ROOT = Path(__file__).resolve().parents[1]
FORKED = Path(__file__).with_name("forked.py")

RENAMED = {
    ("fit-head", "--precision"): "--target-precision",
    ("promote", "--views"): "--cached-crops",
}
"""Options of a command that have another name since; whichever a side's ``--help`` knows is used."""

MEASURED = {"seconds", "images_per_second", "modified", "sha256", "bytes", "at"}
"""Keys of ``--json`` whose values are times and speeds, or go over them: the digest of a head or model, and its length, which
is that of a number of seconds too."""

SENTENCES = ("why", "notes", "reasons", "chosen_on", "error", "problems")
"""Keys of --json and facts of a file that are a sentence, or a list of them."""

TOLD = {".png", ".html"}
"""Endings of files whose differences are told, but are no error."""

_TIME = 1_700_000_000
_TIMED = re.compile(rb'(\\"seconds\\": )[-+.e0-9]+|(\\"sha256\\": \\")[0-9a-f]{64}|(\\"at\\": \\")[-+:T0-9]+')
_SHOWN_TIMES = re.compile(
    r"\d[\d,.]* ?(?:s|min|h|ms|images/s)\b|\d{4}-\d\d-\d\d[T ][\d:+]+"
    r"|'?seconds'?: +[\d.]+|bytes: +[\d.]+|sha256: +[0-9a-f]{64}"
)


@dataclass(frozen=True)
class Written:
    """A file as a command left it.

    Attributes:
        raw: SHA-256 of its bytes.
        timeless: the same without measured times.
        wordless: the same without sentences, too.
        parts: what is in it, long parts as their SHA-256, to say where two files differ.
        faulty: its own digest is not what its format asks for.
    """

    raw: str
    timeless: str
    wordless: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    faulty: bool = False


@dataclass(frozen=True)
class Ran:
    """What a command did. A file that it removed is None."""

    status: int
    out: str
    err: str
    files: Mapping[str, Written | None]


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was; ``kind`` is the list that it belongs to: differences, reworded or told."""

    command: str
    what: str
    was: str
    now: str
    kind: str = "differences"

    def as_dict(self) -> dict[str, str]:
        """For the JSON line."""
        return {"command": self.command, "what": self.what, "was": self.was[:300], "now": self.now[:300]}


class Side:
    """One version of the code, with a folder to run in.

    Args:
        root: the folder; ``code`` is in it.
        shared: real images and weights.
    """

    def __init__(self, root: Path, shared: Path) -> None:
        self.root, self.work, self.home, self.inputs = root, root / "work", root / "home", root / "inputs"
        for folder in (self.work, self.inputs, self.home):
            folder.mkdir(parents=True)
        (root / "shared").symlink_to(shared.resolve())
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FEATX", "PYTHON", "TORCH_HOME"))}
        self.environment = kept | {
            "PYTHONPATH": str(root / "code"),
            "FEATX_HOME": str(self.home),
            "TORCH_HOME": str(root / "torch"),
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin as they wait cost much where the machine has other work
        }
        self.new_names: set[str] = set()
        self._begun: set[str] = set()
        self._forker: subprocess.Popen[str] | None = None
        self.look()
        keys = {key[2:]: self.named(command, key)[2:] for command, key in RENAMED}
        write_inputs(self.inputs, keys)
        _age(self.inputs)

    def look(self) -> None:
        """Find the names of ``RENAMED`` that the code knows, and prove that this code is what runs."""
        asked = [sys.executable, "-c", "import featx; print(featx.__file__)"]
        place = subprocess.run(asked, cwd=self.work, env=self.environment, capture_output=True, text=True, check=True)
        if not Path(place.stdout.strip()).is_relative_to(self.root / "code"):
            sys.exit(f"{place.stdout.strip()} would run instead of the code in {self.root / 'code'}")
        self.new_names = {new for (command, _), new in RENAMED.items() if new in self.start([command, "--help"])[1]}

    def named(self, command: str, option: str) -> str:
        """An option as this code names it."""
        new = RENAMED.get((command, option), option)
        return new if new in self.new_names else option

    def start(self, words: Sequence[str]) -> tuple[int, str, str]:
        """Run one command: exit status, stdout, stderr. The first of each kind as a user does, the others by ``forked``."""
        own, named = self.translated(words)
        if named[0] not in self._begun:
            self._begun.add(named[0])
            process = self.popen(words)
            out, err = process.communicate()
            return process.returncode, out, err
        self._forker = self._forker or subprocess.Popen(
            [sys.executable, FORKED], cwd=self.work, env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        files = {"out": self.root / "out", "err": self.root / "err"}
        for file in files.values():
            file.write_bytes(b"")
        asked = {"words": named, "environment": own, **{name: str(file) for name, file in files.items()}}
        assert self._forker.stdin
        assert self._forker.stdout
        print(json.dumps(asked), file=self._forker.stdin, flush=True)
        status = int(self._forker.stdout.readline())
        return status, files["out"].read_text(), files["err"].read_text()

    def translated(self, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """A command's own environment (words such as A=B before it), and its words as this code names them."""
        own = dict(word.split("=", 1) for word in itertools.takewhile(lambda w: re.match("[A-Z_]+=", w), words))
        command, *options = words[len(own) :]
        return own, [command, *(self.named(command, word) for word in options)]

    def popen(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """A command, begun."""
        own, named = self.translated(words)
        return subprocess.Popen(
            [sys.executable, "-m", "featx", *named], cwd=self.work, env=self.environment | own,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> None:
        """No more commands, or none until the folder has been moved or the code changed."""
        if self._forker:
            self._forker.communicate()
        self._forker = None
        self._begun.clear()

    def run(self, line: str) -> Ran:
        """Run a line of ``same_commands``, and note what it wrote."""
        before = self._present()
        words = shlex.split(line)
        if words[0] == "DAMAGE":
            _damage(self.work / words[1], self.work / words[2])
            status, out, err = 0, "", ""
        else:
            status, out, err = self.start(words)
        if line == FIRST:
            _age(self.home)
            write_tables(self.inputs, self.home / "digits", self.root / "shared" / "datasets" / "hymenoptera")
            _age(self.inputs)
        after = self._present()
        gone = {self._name(path): None for path in before.keys() - after.keys()}
        new = {path for path, stamp in after.items() if before.get(path) != stamp}
        return Ran(status, out, err, gone | {self._name(path): _written(path) for path in sorted(new)})

    def _name(self, path: Path) -> str:
        """A file's name in this folder, without the checksum that one of ONNX has in it."""
        return re.sub(r"-[0-9a-f]{24}\.onnx$", ".onnx", str(path.relative_to(self.root)))

    def _present(self) -> dict[Path, tuple[int, int, int]]:
        """All files, with what changes when they are written."""
        files = (path for folder in (self.work, self.home) for path in folder.rglob("*") if path.is_file())
        return {path: (stat.st_mtime_ns, stat.st_size, stat.st_ino) for path in files for stat in [path.stat()]}


def _age(folder: Path) -> None:
    """Give all files one modification time, long ago."""
    for path in folder.rglob("*"):
        os.utime(path, (_TIME, _TIME))


def _damage(source: Path, target: Path) -> None:
    """A copy with one bit turned: of the features, or of a tensor. A model's header has times in it, so count from the end."""
    data = bytearray(source.read_bytes()) if source.exists() else bytearray(9999)
    data[-2000 if source.suffix == ".safetensors" else len(data) // 2] ^= 1
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# What a file is


def _written(path: Path) -> Written:
    data = path.read_bytes()
    raw = _sha256(data)
    if path.suffix == ".safetensors":
        return _of_tensors(raw, data)
    if path.suffix == ".onnx":
        return Written(raw, _sha256(_bare_onnx(data)))
    if path.suffix == ".html":
        return Written(raw, _sha256(_unhurried(data.decode()).encode()))
    if path.suffix == ".csv":
        lines = data.decode().split("\n")
        if lines[0].endswith(",seconds"):
            lines = [lines[0], *(line.rpartition(",")[0] for line in lines[1:])]
        parts = {f"line {number}": text for number, text in enumerate(lines, start=1)}
        return Written(raw, _sha256("\n".join(lines).encode()), parts=parts)
    return Written(raw, raw, parts=_parts_of_hdf5(path) if path.suffix == ".h5" else {})


def _of_tensors(raw: str, data: bytes) -> Written:
    """Of a head or model, which may be damaged."""
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        header, arrays = json.loads(data[8:end]), load(data)
        facts = json.loads(header["__metadata__"]["featx"])
    except (ValueError, KeyError, SafetensorError):
        return Written(raw, raw)
    timeless = _TIMED.sub(rb"\1\2\3", data[8:end].rstrip(b" "))
    wordless = timeless
    for key in facts.keys() & SENTENCES:  # the header is JSON, and the facts are JSON in a string of it
        quoted, value = (json.dumps(json.dumps(part))[1:-1].encode() for part in (key, facts[key]))
        wordless = wordless.replace(quoted + b": " + value, quoted)
    parts = {f"tensor {name}": f"{a.dtype} {a.shape} {_sha256(a.tobytes())}" for name, a in arrays.items()}
    asked = facts.pop("sha256", "")
    parts |= {
        f"fact {key}": re.sub(r'("(?:seconds|at)": )[^,}]+', r"\1TIME", json.dumps({key: facts[key]})) for key in facts
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\0")
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    faulty = digest.hexdigest() != asked
    return Written(raw, _sha256(timeless + data[end:]), _sha256(wordless + data[end:]), parts, faulty)


def _bare_onnx(data: bytes) -> bytes:
    """A network without what it says of the code that it comes from: its values are numbered instead of named."""
    import onnx

    model = onnx.load_from_string(data)
    graph, numbers = model.graph, dict[str, str]()
    values = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (model, graph, *graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""
    for part in (*graph.node, *values):
        part.name = numbers.setdefault(part.name, str(len(numbers)))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and numbers.setdefault(name, str(len(numbers))) for name in names]
    bare: bytes = model.SerializeToString(deterministic=True)
    return bare


def _parts_of_hdf5(path: Path) -> dict[str, str]:
    """Attributes and tables of a feature file, as far as it can be read."""
    import h5py

    parts: dict[str, str] = {}
    try:
        with h5py.File(path) as file:
            parts |= {f"attribute {name}": str(value) for name, value in file.attrs.items()}
            file.visititems(
                lambda name, item: parts.update({f"table {name}": f"{item.dtype} {item.shape} {_sha256(item[()].tobytes())}"})
                if isinstance(item, h5py.Dataset) else None
            )  # fmt: skip
    except (OSError, RuntimeError, KeyError):
        parts["structure"] = "cannot be read"
    return parts


# Comparing


def compare(line: str, was: Ran, now: Ran) -> Iterator[Difference]:
    """What of a command is not as it was."""
    if was.status != now.status:
        yield Difference(line, "exit status", f"{was.status} {was.err[-200:]}", f"{now.status} {now.err[-200:]}")
    yield from _compare_out(line, was, now)
    if _unhurried(was.err) != _unhurried(now.err):
        yield Difference(line, "stderr", *_first_apart(was.err, now.err), kind="told")
    for path in sorted({*was.files, *now.files}):
        first, second = was.files.get(path, "untouched"), now.files.get(path, "untouched")
        kind = "told" if _is_told(path) else "reworded" if _are_reworded(first, second) else "differences"
        for what, *of in _compare_file(first, second):
            yield Difference(line, f"{path}: {what}" if what else path, of[0], of[1], kind)


def _compare_out(line: str, was: Ran, now: Ran) -> Iterator[Difference]:
    try:
        if "--json" not in line or not was.out:
            raise ValueError
        first, second = (json.loads(side.out) for side in (was, now))
    except ValueError:
        exact = "--json" in line or "--failed" in line or line.startswith("predict models")  # nothing, or CSV
        if (was.out != now.out) if exact else _unhurried(was.out) != _unhurried(now.out):
            yield Difference(line, "stdout", *_first_apart(was.out, now.out), "differences" if exact else "told")
        return
    for where, *of in _apart(first, second, "$"):
        said = re.search(rf"\.({'|'.join(SENTENCES)})(\[\d+\])?$", where) and all(value[0] == '"' for value in of)
        yield Difference(line, f"--json {where}", of[0], of[1], "reworded" if said else "differences")


def _is_told(path: str) -> bool:
    """A picture or page; not one of the digits, which are data."""
    return Path(path).suffix in TOLD and not path.startswith("home")


def _apart(was: Any, now: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """Where two values of JSON differ, but for what is measured."""
    if isinstance(was, dict) and isinstance(now, dict):
        if list(was) != list(now):
            yield f"{where} keys", *_only(list(was), list(now))
        for key in was.keys() & now.keys():
            if key not in MEASURED or type(was[key]) is not type(now[key]):
                yield from _apart(was[key], now[key], f"{where}.{key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (first, second) in enumerate(zip(was, now, strict=True)):
            yield from _apart(first, second, f"{where}[{number}]")
    elif type(was) is not type(now) or was != now:
        yield where, json.dumps(was), json.dumps(now)


def _only(was: list[str], now: list[str]) -> tuple[str, str]:
    """The keys that one alone has; all of them, where only their order differs."""
    alone = [key for key in was if key not in now], [key for key in now if key not in was]
    return (str(alone[0]), str(alone[1])) if any(alone) else (str(was), str(now))


def _compare_file(was: Written | str | None, now: Written | str | None) -> Iterator[tuple[str, str, str]]:
    if isinstance(was, Written) and isinstance(now, Written):
        if now.faulty and not was.faulty:
            yield "its sha256 is not that of its content", "", ""
        if was.timeless == now.timeless:
            return
        names = [name for name in sorted({*was.parts, *now.parts}) if was.parts.get(name) != now.parts.get(name)]
        for name in names:
            yield name, was.parts.get(name, "absent"), now.parts.get(name, "absent")
        if not names:
            yield "", was.timeless, now.timeless
    elif was != now:
        first, second = ("removed" if f is None else f if isinstance(f, str) else "written" for f in (was, now))
        yield "", first, second


def _are_reworded(was: Written | str | None, now: Written | str | None) -> bool:
    """Whether the sentences in a file are all that differs."""
    if not isinstance(was, Written) or not isinstance(now, Written):
        return False
    return was.wordless == now.wordless != "" and not now.faulty


def _unhurried(text: str) -> str:
    """Without times, and without the widths that columns of them have."""
    return re.sub(r" +", " ", _SHOWN_TIMES.sub("TIME", text))


def _first_apart(was: str, now: str) -> tuple[str, str]:
    """The first lines that differ."""
    lines = itertools.zip_longest(was.splitlines(), now.splitlines(), fillvalue="(no more lines)")
    return next(((a, b) for a, b in lines if _unhurried(a) != _unhurried(b)), (was, now))


# The two sides


class Versions:
    """The code of a commit and of a tree, and the place where both take turns.

    Args:
        folder: for everything.
        commit: its name.
        tree: a checkout, whose ``featx`` and ``pipelines`` are copied now: later changes do not count.
        shared: as of ``Side``.
    """

    def __init__(self, folder: Path, commit: str, tree: Path, shared: Path) -> None:
        self.folder, self.shared, self.live = folder, shared, folder / "live"
        self.code = {"was": folder / "code-was", "now": folder / "code-now"}
        archive = ["git", "-C", str(ROOT), "archive", commit, "featx", "pipelines"]
        packed = subprocess.run(archive, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(self.code["was"], filter="data")
        for name in ("featx", "pipelines"):
            shutil.copytree(tree / name, self.code["now"] / name, ignore=shutil.ignore_patterns("__pycache__"))

    def begin(self, side: str) -> Side:
        """A fresh folder, at the place of all."""
        self.live.mkdir()
        self.take(side)
        return Side(self.live, self.shared)

    def take(self, side: str) -> None:
        """Put this side's code into the folder that is there."""
        code = self.live / "code"
        code.unlink(missing_ok=True)
        code.symlink_to(self.code[side])

    def pipelines(self) -> list[str]:
        """The commit's recipes, as a command names them."""
        return sorted(f"../code/pipelines/{path.name}" for path in (self.code["was"] / "pipelines").glob("*.toml"))


def run_all(versions: Versions, side: str, lines: Sequence[str]) -> list[Ran]:
    """Run all commands by one side."""
    here, ran = versions.begin(side), []
    for number, line in enumerate(lines, start=1):
        began = time.perf_counter()
        ran.append(here.run(line))
        spent = time.perf_counter() - began
        print(f"{side} {number}/{len(lines)} {spent:5.1f} s  {ran[-1].status}  {line}", file=sys.stderr, flush=True)
    here.end()
    versions.live.rename(versions.folder / side)
    return ran


# A checkpoint

_KILLED = {
    "whole": "--epochs 4 --lr 0.01 --no-flip --patience 4",
    "last": "--epochs 4 --lr 0.01 --last 1 --views 2 --no-flip --patience 4",
}


def go_on(versions: Versions, name: str) -> tuple[dict[str, str], list[Difference]]:
    """Kill a fine-tuning of the commit after an epoch, and go on by both sides."""
    line = f"promote models/head.safetensors --finetune {_KILLED[name]} -o models/{name}.safetensors --json"
    here = versions.begin("was")
    for made in (
        FIRST,
        "extract digits --compute eager",
        "fit-head cache/digits--lenet5.h5 -o models/head.safetensors",
    ):
        here.run(made)
    epochs = _kill_after_an_epoch(here, shlex.split(line))
    found: dict[str, Ran] = {}
    here.end()
    killed = versions.folder / f"killed-{name}"
    versions.live.rename(killed)
    for side in ("was", "now"):
        shutil.copytree(killed, versions.live, symlinks=True)
        versions.take(side)
        here.end()
        here.look()
        found[side] = here.run(line)
        versions.live.rename(versions.folder / f"{name}-{side}")
    result = {"killed_after_epoch": str(epochs), **{side: _outcome(ran) for side, ran in found.items()}}
    if result["now"].startswith("refused"):
        return result, []
    return result, list(compare(f"{line} (gone on)", found["was"], found["now"]))


def _kill_after_an_epoch(here: Side, words: Sequence[str]) -> int:
    """Kill a command as soon as its checkpoint tells of an epoch; how many it tells of."""
    process = here.popen(words)
    try:
        while process.poll() is None:
            if (epochs := _epochs_of(here.work)) > 0:
                break
            time.sleep(0.005)
    finally:
        process.kill()
        _, err = process.communicate()
    if process.returncode != -signal.SIGKILL:
        sys.exit(f"the fine-tuning that was to be killed ended by itself: {err}")
    return max(epochs, _epochs_of(here.work))


def _epochs_of(work: Path) -> int:
    """Epochs that a checkpoint tells of; 0 without one."""
    for path in work.glob("models/*.checkpoint"):
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return len(json.loads(header["__metadata__"]["featx"])["run"]["log"]) - 1
    return 0


def _outcome(ran: Ran) -> str:
    """What became of the run that was killed, in words."""
    if ran.status:
        return f"refused ({ran.status}): {ran.err.strip()[-300:]}"
    notes = [note for note in json.loads(ran.out)["notes"] if "checkpoint" in note]
    return f"continued: {notes[0]}" if notes else "started again, without a word"


def main() -> None:
    """Parse, run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev", help="the commit to compare with")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the other side: a checkout, by default this one")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="real images and weights")
    parser.add_argument("--quick", action="store_true", help="the faster commands alone")
    parser.add_argument("--checkpoint", action="store_true", help="also go on from a fine-tuning that was killed")
    parser.add_argument("--allow-rewording", action="store_true", help="sentences that differ are no error")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave what both sides wrote in this new folder")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="same_files.") as temporary:
        versions = Versions(options.keep or Path(temporary), options.rev, options.tree, options.shared)
        result, differences = measure(versions, quick=options.quick, checkpoint=options.checkpoint)
    lists = {
        kind: [each.as_dict() for each in differences if each.kind == kind]
        for kind in ("told", "reworded", "differences")
    }
    result |= {
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn", "h5py")},
    }
    print(json.dumps({"rev": options.rev, "tree": str(options.tree)} | result | lists))
    sys.exit(1 if lists["differences"] or (lists["reworded"] and not options.allow_rewording) else 0)


def measure(versions: Versions, *, quick: bool, checkpoint: bool) -> tuple[dict[str, Any], list[Difference]]:
    """Run both sides: what is counted, and every difference."""
    lines = commands("../shared/weights/mobilenet_v1_075.safetensors", versions.pipelines(), quick=quick)
    was, now = (run_all(versions, side, lines) for side in ("was", "now"))
    differences = [each for line, *both in zip(lines, was, now, strict=True) for each in compare(line, *both)]
    result: dict[str, Any] = {"commands": len(lines), "exit_statuses": _counted(ran.status for ran in was)}
    files = [
        (path, _agreement(*both, path))
        for both in zip(was, now, strict=True)
        for path in {**both[0].files, **both[1].files}
    ]
    result["files"] = _counted(how for path, how in files if not _is_told(path))
    result["pictures_and_pages"] = _counted(how for path, how in files if _is_told(path))
    if checkpoint:
        result["checkpoint"] = {}
        for name in _KILLED:
            result["checkpoint"][name], found = go_on(versions, name)
            differences += found
    return result, differences


def _agreement(was: Ran, now: Ran, path: str) -> str:
    """How far two files agree, in words."""
    first, second = was.files.get(path, "untouched"), now.files.get(path, "untouched")
    if isinstance(first, Written) and isinstance(second, Written):
        equal, timeless = first.raw == second.raw, first.timeless == second.timeless
        other = "equal but for sentences" if _are_reworded(first, second) else "differ"
        return "equal" if equal else "equal but for times" if timeless else other
    return "removed by both" if first is second else "differ"


def _counted(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


if __name__ == "__main__":
    main()
