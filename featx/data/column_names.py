"""Which columns hold paths, labels and splits by their names: one list for tables and for rows with image bytes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

PATHS: Sequence[Collection[str]] = (
    ("path",),
    (
        *("paths", "file", "files", "filename", "filenames", "filepath", "fname", "image", "images", "imagepath"),
        *("imagefile", "imagename", "imagefilename", "img", "imgpath", "imgfile", "imgname", "picture", "photo"),
    ),
    ("imageid", "imgid", "imageindex"),
    ("id", "idcode"),
    ("url", "urls", "imageurl", "imgurl", "photourl", "fileurl", "imageuri", "imagegcsuri", "sourceref"),
)
"""Names of columns of paths as ``key_of`` gives them; those of the first line that a table has are taken."""

IDS = PATHS[2:4]
"""The names of columns of ids, which may be the names of files without their endings."""

_CLASSES = ("class", "classes", "target", "targets", "category", "categories")

LABELS: Sequence[Collection[str]] = (
    ("label",),
    ("labels",),
    (
        *(what + name for what in _CLASSES for name in ("", "name", "names")),
        *("labelname", "labelnames", "classlabel", "cls", "species", "breed"),
    ),
    ("tag", "tags"),
    tuple(what + name for what in ("class", "target", "category", "label") for name in ("id", "ids", "idx", "index")),
)
"""Names of columns of labels, the surest first."""

SPLITS: Sequence[Collection[str]] = (("split",), ("splits", "splitname", "set", "subset", "partition", "mluse"))
"""Names of columns of splits; all but the first count only if their cells are names of splits."""


def key_of(name: str) -> str:
    """A name without case, spaces, and the characters . - _ #.

    Examples:
        >>> key_of("Image Path"), key_of("image_path")
        ('imagepath', 'imagepath')
    """
    return re.sub(r"[\s_.#-]+", "", name.strip().casefold())


def named(names: Sequence[str], wanted: str) -> str | None:
    """The column that a name means: that name, or else the only one that differs in case, and in spaces or # around it.

    Examples:
        >>> named(["Image", "# Label"], "label"), named(["a", "A"], "b") is None
        ('# Label', True)
    """
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip("# ").casefold() == wanted.strip("# ").casefold()]
    return alike[0] if len(set(alike)) == 1 else None


def candidates(names: Sequence[str], tiers: Sequence[Collection[str]], less: Collection[str] = ()) -> list[str]:
    """The columns that names suggest, of which several are equally likely; [] if there are none.

    Examples:
        >>> candidates(["Label", "class"], LABELS), candidates(["class", "target"], LABELS), candidates(["x"], LABELS)
        (['Label'], ['class', 'target'], [])
    """
    for keys in tiers:
        found = list(dict.fromkeys(name for name in names if key_of(name) in keys and name not in less))
        exact = [name for name in found if name in keys]
        if len(found) > 1 and len(exact) == 1 and len(keys) == 1:
            return exact
        if found:
            return found
    return []
