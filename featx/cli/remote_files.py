"""Feature files on servers: each command takes the URL of one where it takes a file, and reads a copy on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featx.errors import SettingsError
from featx.reporter import SILENT, Reporter

_FILES = ("features", "file", "data")
"""The parameters of commands that may name a feature file."""


def with_local_files(command: str, options: Mapping[str, Any], reporter: Reporter = SILENT) -> dict[str, Any]:
    """The options of a command, with the feature files that they name by URLs as files of this machine.

    Where no file is named and ``--cache`` is a URL, the file that was written there last is fetched; ``extract`` itself takes
    the URL.

    Raises:
        SettingsError: the command does not take a URL as ``--cache``.
        FeatxError: a file cannot be fetched.
    """
    found = dict(options)
    for name in _FILES:
        value = found.get(name)
        if isinstance(value, str) and _is_url(value) and value.partition("?")[0].lower().endswith(".h5"):
            from featx.features.remote_folder import local_file

            found[name] = str(local_file(value, reporter))
    cache = found.get("cache")
    if isinstance(cache, str) and _is_url(cache) and command != "extract":
        if "features" not in found:
            raise SettingsError(
                f"featx {command} takes a folder of this machine as --cache, not a URL. featx extract --cache URL keeps copies "
                "of finished files on a server, and the URL of one of them can be named where a feature file can"
            )
        from featx.features.remote_folder import RemoteFolder

        folder = RemoteFolder(cache)
        if found["features"] is None:
            found["features"] = str(folder.fetch_newest(reporter))
            reporter.note(f"taking {found['features']}, the newest file of {folder.location}")
        found["cache"] = str(folder.folder)
    return found


def _is_url(text: str) -> bool:
    """Whether a text looks like a URL, told without an import."""
    return "://" in text and not text.lower().startswith("file://")
