"""Annotations in the form of COCO (https://cocodataset.org/#format-data) as rows of a table; iNaturalist has the same form."""

from __future__ import annotations

from typing import Any

from featx.errors import DatasetError
from featx.text import counted, shortened


def is_coco(found: Any) -> bool:
    """Whether parsed JSON has the parts of COCO's form."""
    if not isinstance(found, dict) or not isinstance(images := found.get("images"), list):
        return False
    if "annotations" in found:
        return isinstance(found["annotations"], list)
    return bool(images) and all(isinstance(image, dict) and "file_name" in image for image in images)  # of a test set


def rows_of_coco(found: dict[str, Any], where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for each annotation: the file of its image, the name of its category and, where it has one, its box.

    Args:
        found: the parsed JSON.
        where: the file, for messages.

    Returns:
        Rows with the columns ``path``, ``label``, ``bbox`` (x, y, width, height), ``supercategory``, ``image_id`` and
        ``annotation_id``; and notes about what is left out.

    Raises:
        DatasetError: an annotation names an image or a category that is not there, or a part is malformed.

    Examples:
        >>> rows, _ = rows_of_coco(
        ...     {
        ...         "images": [{"id": 7, "file_name": "street.jpg"}],
        ...         "categories": [{"id": 1, "name": "car"}],
        ...         "annotations": [{"id": 9, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40]}],
        ...     },
        ...     "instances.json",
        ... )
        >>> rows[0]["path"], rows[0]["label"], rows[0]["bbox"]
        ('street.jpg', 'car', [10, 20, 30, 40])
    """
    _require_objects(found, where)
    images, categories = (_by_id(found, part, where) for part in ("images", "categories"))
    rows, crowds, used = list[dict[str, Any]](), 0, set[Any]()
    for number, annotation in enumerate(found.get("annotations", ()), start=1):
        place = f"{where}, annotation {number}"
        image = images.get(_id(annotation.get("image_id"), place))
        if image is None:
            raise DatasetError(f"{place}: there is no image with the id {shortened(annotation.get('image_id'))}")
        used.add(image["id"])
        if annotation.get("iscrowd"):
            crowds += 1
            continue
        category = None
        if (name := annotation.get("category_id")) is not None:
            category = categories.get(_id(name, place))
            if category is None:
                raise DatasetError(f"{place}: there is no category with the id {shortened(name)}")
        rows.append(
            {
                "path": _file_of(image),
                "label": category.get("name") if category else None,
                "bbox": annotation.get("bbox"),
                "supercategory": category.get("supercategory") if category else None,
                "image_id": image["id"],
                "annotation_id": annotation.get("id"),
            }
        )
    notes = []
    if crowds:
        notes.append(f"left out: {counted(crowds, 'annotation')} of crowds (iscrowd)")
    if without := len(images) - len(used):
        notes.append(f"left out: {counted(without, 'image')} without an annotation")
    if not found.get("annotations"):  # the images of a test set
        rows = [{"path": _file_of(image), "image_id": image["id"]} for image in images.values()]
        notes = ["there are no annotations, so the images are unlabelled"]
    elif not any(row["label"] for row in rows):
        notes.append("the annotations have no categories, so the images are unlabelled")
    return rows, notes


def _file_of(image: dict[str, Any]) -> Any:
    """The file of an image; in LVIS, which names the address in COCO alone, its last folder and its name."""
    url = image.get("coco_url")
    if image.get("file_name") is None and isinstance(url, str):
        return "/".join(url.split("/")[-2:])
    return image.get("file_name")


def _require_objects(found: dict[str, Any], where: str) -> None:
    for part in ("images", "annotations", "categories"):
        for number, entry in enumerate(found.get(part) or [], start=1):
            if not isinstance(entry, dict):
                raise DatasetError(f"{where}, {part}, entry {number}: found {shortened(entry)}; expected an object")


def _by_id(found: dict[str, Any], part: str, where: str) -> dict[Any, dict[str, Any]]:
    return {
        _id(entry.get("id"), f"{where}, {part}, entry {number}"): entry
        for number, entry in enumerate(found.get(part) or [], start=1)
    }


def _id(value: Any, place: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DatasetError(f"{place}: the id is {shortened(value)}; expected a number or text")
    return value
