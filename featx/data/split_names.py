"""Names of splits: which folder or cell of a table means train, val or test."""

from __future__ import annotations

import re
from collections.abc import Iterable

from featx.data.image_set import PRETRAIN, SPLIT_NAMES

UNLABELLED_SPLIT = "unlabelled"
"""The split of images in a folder such as ``seg_pred`` or ``unlabeled2017`` beside train and test. They have no labels."""

_EVAL = "eval"

_EVAL_NAMES = {"eval": _EVAL, "evaluation": _EVAL}
_WORDS = {
    **{name: split for name, split in SPLIT_NAMES.items() if split != PRETRAIN},
    **_EVAL_NAMES,
    "trainval": "train",
    "validate": "val",
    "devel": "val",
    "development": "val",
    "trn": "train",
    "tst": "test",
    "holdout": "test",
}
_FILLERS = {"set", "sets", "split", "data", "dataset", "image", "images", "img", "imgs", "files", "folder", "seg"}
_UNLABELLED_WORDS = {"pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled", "unsup", "unsupervised"}
_YES, _NO = ("1", "true", "t", "yes"), ("0", "false", "f", "no")
_JOINED = re.compile(rf"({'|'.join(_WORDS)})(?:set|sets|data|image|images|img|imgs|pics|photos|files|folder)")
_LETTERS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def exact_splits(names: Iterable[str]) -> dict[str, str]:
    """Map names that are a split's name, in upper or lower case, to splits, and other names to "".

    The name eval means the split that the others leave free: test beside a val, else val.

    Examples:
        >>> exact_splits(["Training", "eval", "cat"])
        {'Training': 'train', 'eval': 'val', 'cat': ''}
    """
    return _settle_eval({name: {**SPLIT_NAMES, **_EVAL_NAMES}.get(name.lower(), "") for name in names})


def worded_splits(names: Iterable[str]) -> dict[str, str]:
    """Map names that hold the word of a split to splits, and other names to "".

    A word ends where letters end, or where lower case turns to upper case: ``train2017``, ``test_set``, ``seg_train`` and
    ``TestData`` hold the word of a split, ``contest`` and ``medieval`` do not. A name with the words of two splits, such as
    ``train_test``, means neither; ``train_val`` means train.

    Examples:
        >>> worded_splits(["train2017", "seg_test", "ValidSet", "contest"])
        {'train2017': 'train', 'seg_test': 'test', 'ValidSet': 'val', 'contest': ''}
    """
    return _settle_eval({name: SPLIT_NAMES.get(name.lower()) or _worded(name) for name in names})


def splits_of_cells(cells: Iterable[str]) -> dict[str, str]:
    """Map the distinct cells of a table's column of splits to splits; a name of no split is a split of its own.

    Names such as ``train_set`` and ``test_set`` mean splits if all cells are of that form, each a split of its own.

    Examples:
        >>> splits_of_cells(["Train", "fold 7"]), splits_of_cells(["train_set", "test_set"])
        ({'Train': 'train', 'fold 7': 'fold 7'}, {'train_set': 'train', 'test_set': 'test'})
    """
    exact = exact_splits(cells)
    worded = worded_splits(exact)
    if all(map(is_split_alone, worded)) and len(set(worded.values())) == len(worded):
        return worded
    return {name: split or name for name, split in exact.items()}


def split_of_flag(name: str) -> str:
    """The split that a column such as ``is_valid`` or ``is_training_image`` marks; "" for other names.

    Examples:
        >>> split_of_flag("is_valid"), split_of_flag("isTest"), split_of_flag("is_training_image"), split_of_flag("isolated")
        ('val', 'test', 'train', '')
    """
    words = [word.lower() for word in _words(name)]
    if len(words) < 2 or words[0] != "is" or set(words[2:]) - _FILLERS:
        return ""
    return SPLIT_NAMES.get(words[1], "")


def splits_of_flags(name: str, cells: Iterable[str]) -> dict[str, str]:
    """Map the distinct cells of such a column, which are true or false in any form, to splits; {} for other columns.

    Images that are not of the split are train; those that are not train are test.

    Examples:
        >>> splits_of_flags("is_valid", ["False", "True"]), splits_of_flags("is_train", ["1"])
        ({'False': 'train', 'True': 'val'}, {'1': 'train'})
    """
    split, plain = split_of_flag(name), {cell: cell.casefold().removesuffix(".0") for cell in cells}
    if not split or not set(plain.values()) <= {*_YES, *_NO}:
        return {}
    other = "test" if split == "train" else "train"
    return {cell: split if text in _YES else other for cell, text in plain.items()}


def is_unlabelled_name(name: str) -> bool:
    """Whether a folder beside those of splits holds images to predict, by its name: ``seg_pred``, ``unlabeled2017``."""
    return any(word.lower() in _UNLABELLED_WORDS for word in _words(name))


def name_without_split(name: str) -> str:
    """What remains of a name without the word of a split, in letters: "cats" of ``train_cats``, "" of ``train2017``."""
    return " ".join(word for word in _words(name) if word.lower() not in _WORDS and not _JOINED.fullmatch(word.lower()))


def is_split_alone(name: str) -> bool:
    """Whether a name means a split and nothing else: ``train2017`` and ``test_set`` do, ``train_station`` does not."""
    return (
        bool(_worded(name) or SPLIT_NAMES.get(name.lower()))
        and set(name_without_split(name).lower().split()) <= _FILLERS
    )


def _worded(name: str) -> str:
    words = [word.lower() for word in _words(name)]
    joined = [match[1] for word in words if (match := _JOINED.fullmatch(word))]
    found = {_WORDS[word] for word in (*joined, *words) if word in _WORDS}
    if "pre" in words or not found:
        return ""
    if found == {"train", "val"}:
        return "train"
    return found.pop() if len(found) == 1 else ""


def _words(name: str) -> list[str]:
    runs = _LETTERS.findall(name)
    return [word for run in runs for word in (_CAMEL.findall(run) if run.isascii() else [run])]


def _settle_eval(splits: dict[str, str]) -> dict[str, str]:
    found = set(splits.values())
    meaning = "test" if "val" in found and "test" not in found else "val"
    return {name: meaning if split == _EVAL else split for name, split in splits.items()}
