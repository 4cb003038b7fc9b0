"""Feature files on servers: each command takes the URL of one where it takes a file, and reads a copy on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featx.errors import SettingsError
from featx.reporter import SILENT, Reporter

_FILES = ("features", "file", "data", "words", "images", "compare")
"""The parameters of commands that may name a feature file."""

_OF_THIS_MACHINE = ("cache", "cache rm", "cache merge")
"""The commands that list, merge and remove files, which they do on this machine alone."""


def with_local_files(command: str, options: Mapping[str, Any], reporter: Reporter = SILENT) -> dict[str, Any]:
    """The options of a command, with the feature files that they name by URLs as files of this machine.

    Raises:
        SettingsError: the command does not take a URL as ``--cache``.
        FeatxError: a file cannot be fetched.
    """
    found = dict(options)
    for name in _FILES:
        value = found.get(name)
        if isinstance(value, str):
            found[name] = _local(value, reporter)
        elif isinstance(value, tuple):
            found[name] = tuple(_local(each, reporter) for each in value)
    cache = found.get("cache")
    if command in _OF_THIS_MACHINE and isinstance(cache, str) and _is_url(cache):
        raise SettingsError(
            f"featx {command} takes a folder of this machine as --cache, not a URL; the program of the service lists and "
            "removes what is on it"
        )
    return found


def _local(value: Any, reporter: Reporter) -> Any:
    """The copy of a feature file that is named by its URL; any other value as it is."""
    if not isinstance(value, str) or not _is_url(value) or not value.partition("?")[0].lower().endswith(".h5"):
        return value
    from featx.features.remote_folder import local_file

    return str(local_file(value, reporter))


def _is_url(text: str) -> bool:
    """Whether a text looks like a URL, told without an import."""
    return "://" in text and not text.lower().startswith("file://")
