"""Which columns hold the images, the labels and the splits of Parquet files and Hugging Face data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.compute

from featx.data.column_names import LABELS, SPLITS, candidates, key_of, named
from featx.data.encoded import is_image_text
from featx.data.formats import format_of
from featx.data.scan_options import ScanOptions
from featx.data.split_names import split_of_flag
from featx.errors import DatasetError
from featx.text import listed

_IMAGE_NAMES = {
    *("image", "images", "img", "imgs", "jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "picture", "photo", "pic"),
    *(
        "image_bytes",
        "img_bytes",
        "image_data",
        "jpeg_bytes",
        "jpg_bytes",
        "png_bytes",
        "image_content",
        "encoded_image",
    ),
}
"""The names of columns of plain bytes that hold images."""

_OTHER_LABELS = re.compile(r".*[_ -](label|class|category)|y")
"""Names of columns of labels in lower case that count where none of ``LABELS`` is there."""


@dataclass(frozen=True)
class ImageColumn:
    """A column of images.

    Attributes:
        name: of the column.
        child: the field with the bytes, of a column of structures; "" of a column of plain bytes.
        path: the field with the path of each image, of a column of structures; "" where there is none.
        is_text: whether the images are text in base64.
    """

    name: str
    child: str = ""
    path: str = ""
    is_text: bool = False

    @property
    def leaves(self) -> list[str]:
        """The columns of Parquet with the bytes and, if there is one, the path."""
        return [f"{self.name}.{field}" for field in (self.child, self.path) if field] or [self.name]


@dataclass(frozen=True)
class RowSchema:
    """What the columns of rows hold.

    Attributes:
        image: the column of images.
        label: the column of labels, or None.
        label_columns: columns of 0 and 1, one for each label, in its place.
        split: the column of splits, or None.
        further: other columns with one value in each row.
        features: the descriptions of the columns by ``datasets``, by their names.
        label_separator: what stands between the labels of an image in a cell, besides ``|``.
        split_is_guessed: whether ``split`` counts only if its cells are names of splits.
    """

    image: ImageColumn
    label: str | None
    label_columns: tuple[str, ...]
    split: str | None
    further: tuple[str, ...]
    features: Mapping[str, Any]
    label_separator: str | None = None
    split_is_guessed: bool = False

    @property
    def cells(self) -> list[str]:
        """The columns that are read when the rows are listed, without the images."""
        path = [f"{self.image.name}.{self.image.path}"] if self.image.path else []
        named = [name for name in (self.label, self.split) if name]
        return list(dict.fromkeys([*path, *named, *self.label_columns, *self.further]))


def read_schema(
    where: str, schema: Any, features: Mapping[str, Any], options: ScanOptions, *, images_alone: bool = False
) -> RowSchema:
    """Find the columns of rows.

    Args:
        where: the file or data set, for messages.
        schema: the schema of Arrow.
        features: as ``features_of`` returns them.
        options: names columns that are not to be guessed.
        images_alone: find no column but that of the images.

    Raises:
        DatasetError: there is no column of images, or no such column as the options name; or several columns can be meant.
    """
    for name in schema.names:
        _refuse_twice(where, schema, name)
    image = named_image(where, schema, features, options.image_column)
    if images_alone:
        return RowSchema(image, None, (), None, (), features)
    taken = {image.name, *(candidate.name for candidate in image_columns(schema, features))}
    asked_label = options.label_column and _column(where, schema, options.label_column, "--label-column")
    label_columns = tuple(_column(where, schema, name, "--label-columns") for name in options.label_columns)
    others = [name for name in schema.names if name not in taken]
    label = asked_label or (None if label_columns else _guessed_label(where, others, schema, features))
    split = options.split_column and _column(where, schema, options.split_column, "--split-column")
    guessed = None if split else _guessed_split([name for name in others if name not in (label, *label_columns)])
    used = {*taken, label, split or guessed, *label_columns}
    further = tuple(name for name in schema.names if name not in used and _is_single(schema.field(name).type))
    return RowSchema(
        image,
        label,
        label_columns,
        split or guessed,
        further,
        features,
        options.label_separator,
        split_is_guessed=guessed is not None and key_of(guessed) != "split",
    )


def named_image(where: str, schema: Any, features: Mapping[str, Any], asked: str | None) -> ImageColumn:
    """The column of images: the one that is asked for, or the only one that there is.

    Raises:
        DatasetError: there is none, or there are several and none is asked for.
    """
    found = image_columns(schema, features)
    if asked:
        asked = _column(where, schema, asked, "--image-column")
        column = next((each for each in found if each.name == asked), None) or _image_column(
            schema.field(asked), features, named=True
        )
        if column is None:
            raise DatasetError(
                f"{where}: the column {asked!r} has the type {str(schema.field(asked).type)[:100]}; expected the bytes of "
                "image files, structures with the field bytes, or text in base64"
            )
        return column
    if several := next((field.name for field in schema if _is_list_of_images(field.type)), None) if not found else None:
        raise DatasetError(f"{where}: the column {several!r} holds lists of images; expected one image in each row")
    if not found:
        raise DatasetError(
            f"{where}: there is no column of images among {_names(schema)}; expected one of the bytes of image files; "
            "--image-column names it"
        )
    if len(found) > 1:
        names = " and ".join(repr(each.name) for each in found)
        raise DatasetError(
            f"{where}: the columns {names} hold images; --image-column {found[0].name} names the one to use"
        )
    return found[0]


def image_columns(schema: Any, features: Mapping[str, Any]) -> list[ImageColumn]:
    """The columns that hold images, by their types and names."""
    found = (_image_column(field, features, named=False) for field in schema)
    return [column for column in found if column]


def column_by_content(schema: Any, features: Mapping[str, Any], first_rows: Callable[[list[str]], Any]) -> str | None:
    """The only column of plain bytes or of text in base64 that begin as an image does, where no type and no name tells it.

    Args:
        schema: the schema of Arrow.
        features: as ``features_of`` returns them.
        first_rows: reads a few rows of some columns, as a batch or a table of Arrow.
    """
    if image_columns(schema, features):
        return None
    names = [field.name for field in schema if _is_binary(field.type) or _is_text(field.type)]
    names = [name for name in names if schema.names.count(name) == 1]
    rows = first_rows(names) if names else None
    if rows is None:
        return None
    found = []
    for name in names:
        values = rows.column(name).drop_null()
        first = values[0].as_py() if len(values) else None
        if is_image_text(first) or (isinstance(first, bytes) and format_of(first[:64])):
            found.append(name)
    return found[0] if len(found) == 1 else None


def features_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The descriptions of columns that ``datasets`` keeps in a schema; {} where there are none, or no sound ones."""
    try:
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def class_names(feature: Any) -> list[str] | None:
    """The names of the classes that whole numbers stand for, alone or in lists, as ``datasets`` describes a column."""
    if isinstance(feature, list) and len(feature) == 1:  # a sequence, in an older form
        return class_names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return class_names(feature.get("feature"))
    names = feature.get("names")
    is_label = feature.get("_type") == "ClassLabel" and isinstance(names, list)
    return [str(name) for name in names or []] if is_label else None


def _image_column(field: Any, features: Mapping[str, Any], *, named: bool) -> ImageColumn | None:
    """A column of Arrow as one of images; None if it is none. Plain bytes count by their names, text if it is named."""
    feature = features.get(field.name)
    kind = feature.get("_type") if isinstance(feature, dict) else None
    if not named and kind not in (None, "Image", "Value"):  # sound and films have bytes, too
        return None
    types, type_ = pyarrow.types, _plain(field.type)
    if types.is_struct(type_):
        children = [type_.field(number) for number in range(type_.num_fields)]
        path = next((c.name for c in children if c.name == "path" and _is_text(c.type)), "")
        data = next((c.type for c in children if c.name == "bytes"), None)
        if data is None or not (_is_binary(data) or (path and types.is_null(data))):  # pandas: no image has bytes
            return None
        return ImageColumn(field.name, "bytes", path)
    if _is_binary(type_) and (named or kind == "Image" or field.name.lower() in _IMAGE_NAMES):
        return ImageColumn(field.name)
    return ImageColumn(field.name, is_text=True) if named and _is_text(type_) else None


def _is_list_of_images(type_: Any) -> bool:
    types = pyarrow.types
    if not (types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)):
        return False
    return _image_column(pyarrow.field("image", type_.value_type), {}, named=False) is not None


def _plain(type_: Any) -> Any:
    """The type of the values of a column that may be encoded by a dictionary."""
    return type_.value_type if pyarrow.types.is_dictionary(type_) else type_


def _is_binary(type_: Any) -> bool:
    types, type_ = pyarrow.types, _plain(type_)
    is_view = getattr(types, "is_binary_view", lambda _: False)
    return bool(types.is_binary(type_) or types.is_large_binary(type_) or is_view(type_))


def _is_text(type_: Any) -> bool:
    types, type_ = pyarrow.types, _plain(type_)
    is_view = getattr(types, "is_string_view", lambda _: False)
    return bool(types.is_string(type_) or types.is_large_string(type_) or is_view(type_))


def _is_single(type_: Any) -> bool:
    """Whether a type is text, a number, a truth value or a time."""
    types, type_ = pyarrow.types, _plain(type_)
    is_number = types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_)
    return bool(_is_text(type_) or is_number or types.is_boolean(type_) or types.is_temporal(type_))


def _guessed_label(where: str, names: Sequence[str], schema: Any, features: Mapping[str, Any]) -> str | None:
    """The column of labels by its name or its description; None if there is none.

    Raises:
        DatasetError: several columns can be meant.
    """
    usable = [name for name in names if not _holds_objects(schema.field(name).type)]
    described = [name for name in usable if class_names(features.get(name)) is not None]
    named_so = candidates(described, LABELS)
    surest = candidates(usable, LABELS[:2])
    rest = [name for name in usable if _OTHER_LABELS.fullmatch(name.lower())]
    for found in (surest, named_so if len(named_so) == 1 else described, candidates(usable, LABELS), rest):
        if len(found) > 1:
            raise DatasetError(
                f"{where}: the columns {' and '.join(map(repr, found[:6]))} may hold the labels; --label-column {found[0]} "
                "names the one to use"
            )
        if found:
            return found[0]
    return None


def _guessed_split(names: Sequence[str]) -> str | None:
    """The column of splits by its name; None if there is none, or several could be."""
    found = candidates(names, SPLITS) or [name for name in names if split_of_flag(name)]
    return found[0] if len(found) == 1 else None


def _holds_objects(type_: Any) -> bool:
    types, type_ = pyarrow.types, _plain(type_)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return _holds_objects(type_.value_type) or types.is_nested(type_.value_type)
    return bool(types.is_struct(type_) or types.is_map(type_))


def _column(where: str, schema: Any, name: str, option: str) -> str:
    """The column that an option names: a name with dots may mean a field of structures."""
    found = named(schema.names, name)
    if found is not None:
        _refuse_twice(where, schema, found)
        return found
    top, *inner = name.split(".")
    kind = schema.field(top).type if inner and schema.names.count(top) == 1 else None
    for each in inner:
        if kind is not None:
            is_there = pyarrow.types.is_struct(kind) and kind.get_field_index(each) >= 0
            kind = kind.field(each).type if is_there else None
    if kind is None:
        raise DatasetError(f"{where}: {option} names {name!r}; found the columns {_names(schema)}")
    return name


def column_at(table: Any, name: str) -> Any:
    """A column of a table of Arrow, or a field of its structures."""
    if name in table.column_names:
        return table.column(name)
    top, *inner = name.split(".")
    return pyarrow.compute.struct_field(table.column(top), inner)


def _refuse_twice(where: str, schema: Any, name: str) -> None:
    if (count := schema.names.count(name)) > 1:
        raise DatasetError(f"{where}: there are {count} columns {name!r}; expected one")


def _names(schema: Any) -> str:
    return listed(list(map(repr, schema.names))) or "none"


def unnamed_note(where: str, names: Collection[str]) -> str:
    """The note about rows without a column of labels."""
    among = f" among {listed(sorted(names))}" if names else ""
    return f"{where}: no column of labels was found{among}, so the images have no labels; --label-column names one"
