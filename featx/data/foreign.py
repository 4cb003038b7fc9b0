"""What to do with files that hold images or labels in a form that featx does not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_NPZ = "numpy.savez('photos.npz', train_images=..., train_labels=...) makes a file that featx reads"
_UNPACK = "write their images to a folder, to shards of WebDataset or to Parquet"
_RENAME = "a table whose ending featx does not know"

_REMEDIES: Mapping[tuple[str, ...], str] = {
    (".tfrecord", ".tfrecords", ".tfrec"): f"TFRecord files are not read: {_UNPACK}",
    (".mdb", ".lmdb"): f"LMDB databases are not read: {_UNPACK}",
    (".rec",): f"RecordIO files are not read: {_UNPACK}",
    (".beton",): f"files of FFCV are not read: {_UNPACK}",
    (".h5", ".hdf5", ".mat"): f"arrays in HDF5 and MATLAB files are not read as images: {_NPZ}",
    (".pkl", ".pickle", ".pt", ".pth"): f"pickled files are never opened, since they can run any program: {_NPZ}",
    (".bin",): f"arrays without a header are not read: {_NPZ}",
    (".xml",): "annotations in XML are not read: convert them to JSON in the form of COCO, or to a table",
    (".yaml", ".yml"): "a description in YAML is not read: name the folder of the images, or a table",
    (".lst",): f"{_RENAME}: rename it to .tsv, and number its columns, such as --path-column 3 --label-column 2",
    (".manifest",): f"{_RENAME}: rename it to .jsonl",
    (".xlsx", ".xls", ".ods"): "spreadsheets are not read: save the sheet as .csv",
}


def remedy(names: Iterable[str]) -> str:
    """What to do with files of these names; "" if nothing is known about them.

    Examples:
        >>> remedy(["notes.md", "train.manifest"])
        'a table whose ending featx does not know: rename it to .jsonl'
        >>> remedy(["notes.md"])
        ''
    """
    lowered = [name.lower() for name in names]
    for endings, sentence in _REMEDIES.items():
        if any(name.endswith(endings) for name in lowered):
            return sentence
    if any(name.rpartition("/")[2].startswith(("data_batch_", "test_batch")) for name in lowered):
        return _REMEDIES[".pkl", ".pickle", ".pt", ".pth"]
    return ""
