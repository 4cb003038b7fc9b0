"""Other splits for a complete feature file, as a file that is whole at any moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from featx.features.feature_file import FeatureFile, computed_digest
from featx.features.file_marks import record_marks, recorded_marks, seal_of
from featx.features.header import INCOMPLETE
from featx.features.structured_file import StructuredFile, require_space, sync_folder
from featx.text import to_utf8


def write_with_splits(file: FeatureFile, splits: np.ndarray, path: Path) -> FeatureFile:
    """Copy a complete feature file, with other splits.

    Args:
        file: the file.
        splits: (N,) str; they are not longer than the file's.
        path: where the copy goes, in the same folder; it may be the path of the file itself.

    Returns:
        The copy, open for reading.

    Raises:
        OutputError: the disk fails or is full.
    """
    marks = recorded_marks(file)
    new = StructuredFile(path.with_name(path.name + ".new"), file.structure)
    with new.output_errors():
        require_space(path, file.structure.size)
        new.path.unlink(missing_ok=True)
        shutil.copyfile(file.path, new.path)
    new.open()
    new.set_attributes(INCOMPLETE)
    width = file.structure.tables["images/split"].dtype.itemsize
    new.put("images/split", 0, np.array([to_utf8(split) for split in splits.tolist()], dtype=f"S{width}"))
    new.sync()
    with new.output_errors():
        written = FeatureFile(new.path, allow_partial=True)
        digest = computed_digest(written, {layer: file.checksums(layer) for layer in file.layers}).encode()
        del written
    new.set_attributes({"digest": digest, "complete": np.uint8(1)})
    new.sync()
    new.rename(path)
    with new.output_errors():
        sync_folder(path.parent)
    copy = FeatureFile(path)
    if marks:
        record_marks(path, seal_of(copy, copy.images.paths), marks)
    return copy
