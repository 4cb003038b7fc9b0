"""The classes of features as vectors of text, by the text tower of the backbone that the features come from."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.constants import DEFAULT_TEMPLATE
from featx.errors import HeadError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.targets import label_sets
from featx.heads.texts import ClassTexts
from featx.io.strict_json import strict_json
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.system import why_unreadable
from featx.text import counted, form, listed, printable

if TYPE_CHECKING:  # torch is imported only where texts are encoded
    from featx.backbones.backbone import Backbone

ClassNames = Mapping[str, str | Sequence[str]]
"""For each class, the words, or several alternatives, that stand for ``{}`` in a template."""


def text_backbone(features: FeatureSet, purpose: str) -> Backbone:
    """The backbone that features come from, which must have a text tower.

    Args:
        features: of the penultimate layer.
        purpose: what the texts are for, which begins the message of an error.

    Raises:
        HeadError: the features were not extracted by featx, or are of another layer.
        BackboneError: the backbone has no text tower, or cannot be built here.
        StaleCacheError: the backbone gives other features here.
    """
    if not features.backbone:
        raise HeadError(f"{purpose} needs the backbone of the features, and these were not extracted by featx")
    if LayerSpec.parse(features.layer).layers != (PENULTIMATE,):
        raise HeadError(
            f"{purpose} compares images with texts, and only the penultimate layer lies beside the texts, not "
            f"{features.layer}; use --layer {PENULTIMATE}"
        )
    from featx.backbones.restored import restore_backbone

    backbone = restore_backbone(features.backbone, layers={features.layer: features.identity}, device="cpu")
    backbone.text_tower()  # raises where there is none
    return backbone


def class_texts(
    features: FeatureSet,
    task: str,
    *,
    prompts: Sequence[str] = (),
    class_names: ClassNames | str | os.PathLike[str] | None = None,
) -> ClassTexts:
    """Embed the classes of features as texts.

    Each class's words are put into each template; the unit vectors of all its sentences are averaged and normalised again.

    Args:
        features: of the penultimate layer of a model of images and text.
        task: "classification" or "multilabel".
        prompts: templates with ``{}``; by default "a photo of a {}".
        class_names: for some classes, the words to use; or a JSON or CSV file with them. Other classes are called as in the
            data set, with spaces in place of underscores. It may have classes that the data set has no image of.

    Raises:
        SettingsError: a template without ``{}``, or a file that cannot be read.
        HeadError, BackboneError, StaleCacheError: as ``text_backbone``; or there are fewer than two classes.
    """
    templates = tuple(prompts) or (DEFAULT_TEMPLATE,)
    if bad := [template for template in templates if not isinstance(template, str) or "{}" not in template]:
        raise SettingsError(
            f"the prompt {printable(repr(bad[0]))} has no {{}}, where the name of the class goes, as in {DEFAULT_TEMPLATE!r}"
        )
    named = _read_names(class_names) if isinstance(class_names, str | os.PathLike) else _checked(class_names or {})
    names = list(dict.fromkeys([*_classes(features, task), *named]))
    if len(names) < 2:
        raise HeadError(
            f"a zero-shot comparison needs at least two classes, and the features have {listed(names) or 'none'}; name them "
            "with --class-names FILE"
        )
    words = [named.get(name) or (name.replace("_", " "),) for name in names]
    backbone = text_backbone(features, "the texts of classes")
    sentences = [
        template.replace("{}", word) for alternatives in words for word in alternatives for template in templates
    ]
    unit = backbone.encode_text(sentences).astype(np.float64)
    ends = np.cumsum([len(alternatives) * len(templates) for alternatives in words])
    vectors = np.stack([part.mean(axis=0) for part in np.split(unit, ends[:-1])])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tower = backbone.text_tower()
    shown = tuple("; ".join(alternatives) for alternatives in words)
    return ClassTexts(tuple(names), shown, templates, vectors, tower.scale, tower.bias, tower.sigmoid)


def notes_on_texts(texts: ClassTexts, features: FeatureSet, task: str) -> list[str]:
    """What the user should know about the texts.

    These are the templates, and the classes that are called otherwise, have no images, or have the vector of another.
    """
    renamed = [f"{name} as {words!r}" for name, words in zip(texts.names, texts.words, strict=True) if words != name]
    notes = [f"the texts of the classes: {listed([repr(template) for template in texts.templates], most=3)}"]
    if renamed:
        notes.append(
            f"{counted(len(renamed), 'class has another name', 'classes have other names')} in the texts than in the "
            f"data set: {listed(renamed, most=3)}"
        )
    pictured = set(_classes(features, task))
    if further := [printable(name) for name in texts.names if name not in pictured]:
        notes.append(
            f"the data set has no image of {counted(len(further), 'class', 'classes')}: {listed(further, most=3)}"
        )
    _, group, sizes = np.unique(np.round(texts.vectors, 5), axis=0, return_inverse=True, return_counts=True)
    if (sizes > 1).any():
        first = int(np.flatnonzero(sizes[group] > 1)[0])
        same = [printable(texts.names[i]) for i in np.flatnonzero(group == group[first])]
        more = int((sizes > 1).sum()) - 1
        others = f"; so {form(more, 'does', 'do')} {counted(more, 'group')} more" if more else ""
        notes.append(
            f"the classes {listed(same, most=3)} have one and the same text vector, so the texts do not tell them apart"
            f"{others}; --class-names gives them other words"
        )
    return notes


def _classes(features: FeatureSet, task: str) -> list[str]:
    """The names of the classes, or labels, that images of the features have."""
    labelled = np.flatnonzero(features.labels >= 0)
    if task == "multilabel":
        return list(label_sets(features.without_features(labelled))[0])
    return [features.classes[label] for label in np.unique(features.labels[labelled])]


def _read_names(file: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Read a JSON object of texts, or lists of texts, by class; or a CSV file with a class and a text in each row."""
    path = Path(file)
    if why := why_unreadable(path):
        raise SettingsError(f"the class names {path} cannot be read: {why}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):
            return _checked(strict_json(text))
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise SettingsError(f"the class names {path} cannot be read: {error}") from error
    if any(len(row) < 2 for row in rows):
        raise SettingsError(
            f"the class names {path} have a row without a text; expected a class, a comma and its text in each row, or "
            "a JSON object"
        )
    names: dict[str, list[str]] = {}
    for name, *cells in rows:  # a class may have several rows, and empty cells at its end
        names.setdefault(name, []).extend(cell.strip() for cell in cells if cell.strip())
    return _checked(names)


def _checked(names: Any) -> dict[str, tuple[str, ...]]:
    """The words of each class as a tuple."""
    found = {}
    for name, words in names.items() if isinstance(names, Mapping) else [(names, None)]:
        alternatives = (
            (words,) if isinstance(words, str) else tuple(words or ()) if isinstance(words, list | tuple) else ()
        )
        if not (
            isinstance(name, str)
            and alternatives
            and all(isinstance(word, str) and word.strip() for word in alternatives)
        ):
            raise SettingsError(
                f"the class names have {name!r}: {words!r}; expected a text, or a list of texts, for each class"
            )
        found[name] = alternatives
    return found
