"""How the user describes data whose layout does not tell everything: the columns of tables, classes in names, groups."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from featx.arguments import names_of
from featx.errors import DatasetError, SettingsError
from featx.text import did_you_mean

_SEVERAL = ("label_columns", "box_columns")
"""The options that are names of several columns."""

_WHOLE = ("group_level",)
"""The options that are whole numbers."""


def names_text(names: Iterable[str]) -> str:
    """Names with commas between them, as in a line of CSV.

    Examples:
        >>> names_text(["cat", "dog, small"])
        'cat,"dog, small"'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


COMMON = ("label_pattern", "group_level")
"""The options that ``scan_images`` itself applies, to the images of every source."""


@dataclass(frozen=True)
class ScanOptions:
    """The options of ``scan_images`` besides the data themselves. None or () leaves an option to the data.

    Attributes:
        path_column: the column of a table with the paths of the images.
        label_column: the column with their labels.
        split_column: the column with their splits.
        label_columns: columns of 0 and 1, one for each label, instead of a column of labels (one-hot or multi-hot).
        label_separator: what stands between the labels of an image in one cell; ``|`` always does.
        image_column: the column of a Parquet file or a Hugging Face data set with the images.
        root: what the paths of a table are relative to, instead of the table's folder: a folder, an archive or a URL.
        separator: the character between the cells of a text table.
        label_pattern: a regular expression with the group ``label``; the part of an image's file name that it matches is the
            class.
        box_columns: the columns with the part of each image that is meant, in pixels: left, top, width and height, or left,
            top, right and bottom; or one column of lists of four; or ``("none",)`` where columns such as x, y, w, h are no
            boxes.
        group_level: the folder, counted from 1 below the data set, whose name is an image's group; negative numbers count from
            the image upwards.
    """

    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    label_columns: tuple[str, ...] = ()
    label_separator: str | None = None
    image_column: str | None = None
    root: str | None = None
    separator: str | None = None
    label_pattern: str | None = None
    group_level: int | None = None
    box_columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: ScanOptions | None, fields: Mapping[str, Any]) -> ScanOptions:
        """The options of a call that takes both an object and its fields as keyword arguments, which win.

        Raises:
            SettingsError: there is no option of that name, or a value has another type than the option.

        Examples:
            >>> ScanOptions.of(None, {"path_column": "file"}).path_column
            'file'
        """
        known = [field.name for field in dataclasses.fields(cls)]
        values: dict[str, Any] = {}
        for name, value in fields.items():
            if name not in known:
                raise SettingsError(f"there is no option {name!r} of data{did_you_mean(name, known)}")
            if value is None or value == ():
                values[name] = () if name in _SEVERAL else None
            elif name in _SEVERAL:
                values[name] = tuple(names_of(value, name))
            elif name in _WHOLE:
                if not isinstance(value, int) or isinstance(value, bool):
                    raise SettingsError(f"{name} is {value!r}; expected a whole number")
                values[name] = value
            elif not isinstance(value, str | os.PathLike):
                raise SettingsError(f"{name} is {value!r}; expected text")
            else:
                values[name] = os.fspath(value)
        return dataclasses.replace(options or NO_OPTIONS, **values)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are named."""
        single = (self.path_column, self.label_column, self.split_column, self.image_column)
        return tuple(name for name in (*single, *self.label_columns, *self.box_columns) if name)

    def as_words(self) -> list[str]:
        """The words of a command line that set the options.

        Examples:
            >>> ScanOptions(path_column="file", label_columns=("a", "b, c")).as_words()
            ['--path-column', 'file', '--label-columns', 'a,"b, c"']
        """
        words: list[str] = []
        for name, value in self.as_dict().items():
            words += ["--" + name.replace("_", "-"), names_text(value) if isinstance(value, list) else str(value)]
        return words

    def require_only(self, names: Collection[str], data: str | os.PathLike[str], kind: str) -> None:
        """Refuse options that some data do not have.

        Args:
            names: of the options that they have.
            data: where they are.
            kind: what they are, such as "a folder of images".

        Raises:
            DatasetError: another option is set.
            SettingsError: two options exclude one another.

        Examples:
            >>> ScanOptions(separator=";").require_only(["root"], "photos", "a folder of images")
            Traceback (most recent call last):
            featx.errors.DatasetError: --separator has no effect on photos, which is a folder of images
        """
        for other in ("label_column", "label_columns") if self.label_pattern is not None else ():
            if getattr(self, other):
                flag = "--" + other.replace("_", "-")
                raise SettingsError(f"--label-pattern and {flag} are two places of labels; expected one of them")
        wrong = ["--" + name.replace("_", "-") for name in self.as_dict() if name not in names]
        if wrong:
            listed = " and ".join([*([", ".join(wrong[:-1])] if wrong[1:] else []), wrong[-1]])
            raise DatasetError(
                f"{listed} {'have' if wrong[1:] else 'has'} no effect on {os.fspath(data)[:200]}, which is {kind}"
            )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ScanOptions:
        """The inverse of ``as_dict``; unknown fields, and values of a wrong type, are ignored."""
        found = NO_OPTIONS
        for name in (field.name for field in dataclasses.fields(cls)):
            with contextlib.suppress(SettingsError):
                found = cls.of(found, {name: fields[name]} if name in fields else {})
        return found

    @classmethod
    def of_dataset(cls, dataset: Mapping[str, Any]) -> ScanOptions:
        """The options by which a feature file's data set was read.

        Args:
            dataset: its description, which may come from a stranger.
        """
        options = dataset.get("options")
        return cls.from_dict(options) if isinstance(options, dict) else NO_OPTIONS

    def as_dict(self) -> dict[str, Any]:
        """The options that are set, as JSON-compatible values; a feature file stores them, to read the table again."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, ())}


NO_OPTIONS = ScanOptions()
"""Everything is left to the data."""
