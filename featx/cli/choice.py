"""The model or feature file of a command that may be left out: then it is the newest of its folder."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import click

from featx.errors import FeatxError
from featx.reporter import Reporter


def model_and_data(
    words: Sequence[str], models: str, reporter: Reporter, *, missing: str, most: int | None = None
) -> tuple[str, list[str]]:
    """Split the arguments of a command into the model, which comes first if it is given, and the data.

    Args:
        words: the arguments.
        models: the folder of heads and models.
        reporter: gets a note if the newest model is taken and there are others.
        missing: the name of the data in the usage.
        most: the largest number of data; one word more is the model, whatever it is.

    Raises:
        UsageError: there are no data, or a model stands among them.
        ModelNotFoundError: no model is given, and there is none in the folder.
    """
    from featx.io.file_kinds import HEAD, MODEL, kind_of_file, misplaced

    is_given = bool(words) and (len(words) - 1 == most or not _is_data(words[0]))
    given, data = list(words[:is_given]), list(words[is_given:])
    if most and len(data) > most:
        raise click.UsageError(
            f"found {len(words)} arguments; expected at most {most + 1}", click.get_current_context()
        )
    if not data:
        if given and (found := misplaced(given[0], f"a head or model before {missing}", fits=(HEAD, MODEL))):
            raise FeatxError(found)
        raise click.UsageError(f"Missing argument '{missing}'.", click.get_current_context(silent=True))
    for word in data:
        if not given and (kind := kind_of_file(word)) in (HEAD, MODEL):
            raise click.UsageError(
                f"{word} is {kind}; it stands before the data", click.get_current_context(silent=True)
            )
    return (given[0] if given else str(newest_model(models, reporter))), data


def features_and_queries(
    words: Sequence[str], cache: str, reporter: Reporter, *, rows: bool, missing: str
) -> tuple[str, list[str]]:
    """Split the arguments of a command into the feature file, which comes first if it is given, and the images.

    Args:
        words: the arguments.
        cache: the folder of feature files.
        reporter: gets a note if the newest file is taken and there are others.
        rows: whether rows are named by an option, so that no image need be.
        missing: the name of the images in the usage.

    Raises:
        UsageError: there are no images, or a feature file stands among them.
        FeatxError: a file of another kind stands before them.
        CacheMissError: no file is given, and there is none in the folder.
    """
    from featx.features.remote_folder import newest_file
    from featx.io.file_kinds import FEATURE_FILE, FEATURE_SET, HDF5, kind_of_file, misplaced

    context = click.get_current_context(silent=True)
    is_given = bool(words) and not _is_data(words[0])
    given, images = list(words[:is_given]), list(words[is_given:])
    if given and (
        found := misplaced(given[0], f"a feature file before {missing}", fits=(FEATURE_FILE, FEATURE_SET, HDF5))
    ):
        raise FeatxError(found)
    if not images and not rows:
        raise click.UsageError(f"Missing argument '{missing}'.", context)
    for word in images:
        if (kind := kind_of_file(word)) in (FEATURE_FILE, FEATURE_SET):
            more = "one is searched" if given else "it stands before the images"
            raise click.UsageError(f"{word} is {kind}; {more}", context)
    if given:
        return given[0], images
    path = newest_file(cache, reporter)
    reporter.stage(f"taking {path}")
    return str(path), images


def newest_model(models: str, reporter: Reporter) -> Path:
    """The newest head or promoted model of a folder; a note names the others.

    Raises:
        ModelNotFoundError: there is none.
    """
    from featx.heads.head_file import HEAD as HEAD_SCHEMA
    from featx.io.model_file import newest
    from featx.promotion.model_file import MODEL as MODEL_SCHEMA

    path = newest(Path(models), HEAD_SCHEMA, MODEL_SCHEMA, reporter=reporter)
    reporter.stage(f"taking {path}")
    return path


def _is_data(word: str) -> bool:
    """Whether an argument stands for images or a data set, and not for a model."""
    from featx.data.formats import ENDINGS
    from featx.data.places import is_remote
    from featx.data.scan import is_data_set
    from featx.io.file_kinds import FEATURE_SET, IMAGE, PICTURE, kind_of_file

    kind = kind_of_file(word)
    if word == "-" or is_remote(word) or (kind != FEATURE_SET and is_data_set(word)):
        return True
    if kind:
        return kind in (IMAGE, PICTURE)
    return glob.has_magic(word) or word.lower().endswith(ENDINGS)
