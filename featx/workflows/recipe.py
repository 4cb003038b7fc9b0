"""Recipes: TOML files whose tables are the commands and whose keys are their options.

A table maps one to one onto a step below; the command line builds the same steps. Paths are relative to the current
folder, as on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import shlex
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.constants import CACHE, MODELS
from featx.errors import RecipeError
from featx.layer_spec import PENULTIMATE
from featx.promotion.config import FineTuning
from featx.reporter import SILENT, Reporter

if TYPE_CHECKING:  # a step imports what it needs when it runs
    from featx.extraction.extraction import Extraction
    from featx.promotion.promotion import Promotion
    from featx.workflows.fit import Fit


@dataclass(frozen=True)
class ExtractStep:
    """``featx extract``: each field is an option."""

    data: str = "digits"
    backbone: str | None = None
    weights: str = "default"
    layer: tuple[str, ...] = ()
    stages: bool = False
    pooling: str = "avg"
    views: str = "plain"
    dtype: str = "float32"
    device: str = "auto"
    resize: int | None = None
    crop: int | None = None
    background: str | None = None
    max_pixels: int | None = None
    fast_decode: bool = False
    nvjpeg: bool = False
    precision: str = "float32"
    compute: str = "auto"
    batch_size: int | str | None = None
    workers: int | None = None
    rehash: bool = False
    strict: bool = False
    wait: bool = False
    cache: str = CACHE
    out: str | None = None

    def backbone_name(self) -> str:
        """The backbone; left out, ``lenet5`` for the built-in digits and ``resnet50`` for everything else."""
        return self.backbone or ("lenet5" if self.data == "digits" else "resnet50")

    def run(self, reporter: Reporter = SILENT) -> Extraction:
        """Extract."""
        from featx.data.scan import scan_images
        from featx.features.folder import require_place

        if self.fast_decode and self.nvjpeg:
            raise RecipeError("fast-decode and nvjpeg are two ways to decode a JPEG; expected one of them")
        # Before torch is imported: a wrong path, or a place that cannot be written, is said at once.
        images = scan_images(self.data)
        require_place(Path(self.cache), Path(self.out) if self.out else None)

        from featx.backbones.backbone import load_backbone
        from featx.data.decode import MAX_PIXELS
        from featx.extraction.extraction import extract

        backbone = load_backbone(
            self.backbone_name(),
            weights=self.weights,
            layers=self.layer,
            stages=self.stages,
            pooling=self.pooling,
            views=self.views,
            dtype=self.dtype,
            precision=self.precision,
            device=self.device,
            resize=self.resize,
            crop=self.crop,
            background=self.background,
            decoding="scaled" if self.fast_decode else "nvjpeg" if self.nvjpeg else None,
        )
        return extract(
            images,
            backbone,
            cache=self.cache,
            out=self.out,
            compute=self.compute,
            batch_size=self.batch_size,
            workers=self.workers,
            rehash=self.rehash,
            strict=self.strict,
            max_pixels=self.max_pixels or MAX_PIXELS,
            wait=self.wait,
            reporter=reporter,
        )


@dataclass(frozen=True)
class FitHeadStep:
    """``featx fit-head``: each field is an option."""

    features: str | None = None
    model: str = "logreg"
    layer: tuple[str, ...] = (PENULTIMATE,)
    views: str | None = None
    C: float | None = None
    kernel: str = "linear"
    k: int | None = None
    task: str = "auto"
    class_weight: str | None = None
    logit_adjustment: float = 0.0
    calibrate: str | None = None
    reject_below: float | None = None
    precision: float | None = None
    cv: int | None = None
    repeat: int = 1
    shots: tuple[int, ...] = ()
    group: str | None = None
    table: str | None = None
    report: bool = False
    seed: int = 0
    device: str = "cpu"
    cache: str = CACHE
    models: str = MODELS
    out: str | None = None

    def run(self, reporter: Reporter = SILENT) -> Fit:
        """Fit, judge and save a head."""
        from featx.features.folder import newest
        from featx.heads.head import Head
        from featx.workflows.fit import AUTO, fit_head

        auto = self.model == AUTO
        if self.repeat > 1 and not (self.cv or self.shots):
            raise RecipeError("repeat says how often cv or shots are done; expected one of them with it")
        if auto and (self.C is not None or self.k is not None or self.kernel != "linear"):
            raise RecipeError("auto chooses for itself; C, k and kernel are for a head of your choice")
        head = Head(
            "logreg" if auto else self.model,
            C=self.C,
            kernel=self.kernel,
            k=self.k,
            seed=self.seed,
            task=self.task,
            class_weight=self.class_weight,
            logit_adjustment=self.logit_adjustment,
            calibrate=self.calibrate,
            reject_below=self.reject_below,
            target_precision=self.precision,
            device=self.device,
        )
        features = self.features or newest(Path(self.cache))
        return fit_head(
            features,
            head,
            layer=self.layer,
            views=self.views,
            auto=auto,
            cv=self.cv,
            repeat=self.repeat,
            shots=self.shots,
            group=self.group,
            table=self.table,
            card=self.report,
            out=self.out,
            models=self.models,
            reporter=reporter,
        )


@dataclass(frozen=True)
class PromoteStep:
    """``featx promote``: each field is an option."""

    head: str | None = None
    finetune: bool = False
    epochs: int = FineTuning.epochs
    lr: float = FineTuning.lr
    backbone_lr: float = FineTuning.backbone_lr
    layer_decay: float = FineTuning.layer_decay
    from_layer: str | None = FineTuning.from_layer
    last: int | None = FineTuning.last
    train_bn: bool = FineTuning.train_bn
    optimizer: str = FineTuning.optimizer
    weight_decay: float = FineTuning.weight_decay
    clip: float = FineTuning.clip
    batch_size: int = FineTuning.batch_size
    warmup: float = FineTuning.warmup
    patience: int = FineTuning.patience
    augment: str = FineTuning.augment
    crop_scale: float = FineTuning.crop_scale
    flip: bool = FineTuning.flip
    mixup: float = FineTuning.mixup
    label_smoothing: float = FineTuning.label_smoothing
    class_weight: str | None = FineTuning.class_weight
    ema: float = FineTuning.ema
    views: int = FineTuning.views
    compile: bool = FineTuning.compile
    interpolate: bool = FineTuning.interpolate
    significance: float = FineTuning.significance
    repeats: int = FineTuning.repeats
    seed: int = FineTuning.seed
    features: str | None = None
    backbone: str | None = None
    weights: str | None = None
    device: str = "auto"
    workers: int | None = None
    tensorboard: bool = False
    models: str = MODELS
    out: str | None = None

    def run(self, reporter: Reporter = SILENT) -> Promotion:
        """Assemble, prove, fine-tune if asked, and save."""
        from featx.heads.head_file import HEAD
        from featx.io.model_file import newest
        from featx.promotion.promotion import promote

        settings = FineTuning(**{f.name: getattr(self, f.name) for f in dataclasses.fields(FineTuning)})
        return promote(
            self.head or newest(Path(self.models), HEAD),
            finetune=self.finetune,
            settings=settings,
            features=self.features,
            backbone=self.backbone,
            weights=self.weights,
            device=self.device,
            workers=self.workers,
            out=self.out,
            models=self.models,
            tensorboard=self.tensorboard,
            reporter=reporter,
        )


Step = ExtractStep | FitHeadStep | PromoteStep
Result = typing.Union["Extraction", "Fit", "Promotion"]

STEPS: Mapping[str, type[ExtractStep] | type[FitHeadStep] | type[PromoteStep]] = {
    "extract": ExtractStep,
    "fit-head": FitHeadStep,
    "promote": PromoteStep,
}
"""The tables of a recipe, in the order in which they run."""


@dataclass(frozen=True)
class Recipe:
    """The steps of a recipe, in order.

    Attributes:
        steps: by their command.
    """

    steps: Mapping[str, Step]


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: no such file, not TOML, unknown tables or keys, values of a wrong type; all faults at once.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    faults = [f"[{name}] is no step{_did_you_mean(name, STEPS)}" for name in tables if name not in STEPS]
    steps: dict[str, Step] = {}
    for name, step in STEPS.items():
        if name in tables:
            values, found = _read_table(name, tables[name], step)
            faults += found
            steps[name] = step(**values)
    if not tables:
        faults.append(f"there is no step; expected one or more of {', '.join(f'[{name}]' for name in STEPS)}")
    if faults:
        raise RecipeError(f"{path} has {len(faults)} fault{'s' * (len(faults) > 1)}:", faults)
    return Recipe(steps)


def run_recipe(
    recipe: Recipe,
    *,
    reporter: Callable[[str], Reporter] = lambda _: SILENT,
) -> Iterator[tuple[str, Result]]:
    """Run the steps in order; each takes what the one before made, unless it names something else.

    Args:
        recipe: from ``load_recipe``.
        reporter: gives the reporter of each step by its name.

    Yields:
        The step's name and its result, as each ends.
    """
    made: dict[str, str] = {}
    for name, step in recipe.steps.items():
        if isinstance(step, FitHeadStep) and step.features is None and "extract" in made:
            step = dataclasses.replace(step, features=made["extract"])
        if isinstance(step, PromoteStep) and step.head is None and "fit-head" in made:
            step = dataclasses.replace(step, head=made["fit-head"])
        result = step.run(reporter(name))
        made[name] = str(result.file if isinstance(step, ExtractStep) else result.path)  # type: ignore[union-attr]
        yield name, result


def as_command(name: str, step: Step) -> str:
    """The command that does the same as a step."""
    words = ["featx", name]
    first = dataclasses.fields(step)[0].name
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        if value == field.default or value is None:
            continue
        if field.name == first:
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{_key(field.name)}")
        else:
            option = "-C" if field.name == "C" else f"--{_key(field.name)}"
            if field.name == "shots":
                value = ",".join(map(str, value))
            words += [w for item in (value if isinstance(value, tuple) else (value,)) for w in (option, str(item))]
    return shlex.join(words)


def _read_table(name: str, table: Any, step: type[Any]) -> tuple[dict[str, Any], list[str]]:
    """A table's values by field name, and what is wrong with it."""
    if not isinstance(table, dict):
        return {}, [f"{name} is {table!r}; expected a table [{name}]"]
    hints = typing.get_type_hints(step, localns={"Extraction": Any, "Fit": Any, "Promotion": Any})
    fields = {_key(field.name): field.name for field in dataclasses.fields(step)}
    values: dict[str, Any] = {}
    faults = []
    for key, value in table.items():
        if key not in fields:
            faults.append(f"[{name}] {key} is no option{_did_you_mean(key, fields)}")
            continue
        kind = hints[fields[key]]
        fitting = _fitting(value, kind)
        if fitting is None:
            faults.append(f"[{name}] {key} is {value!r}; expected {_kind_name(kind)}")
        else:
            values[fields[key]] = fitting
    return values, faults


def _fitting(value: Any, kind: Any) -> Any:
    """The value as its field wants it, or None where it is of another type."""
    wanted = [k for k in typing.get_args(kind) if k is not type(None)] if isinstance(kind, types.UnionType) else [kind]
    if any(typing.get_origin(k) is tuple for k in wanted):
        item = next(typing.get_args(k)[0] for k in wanted if typing.get_origin(k) is tuple)
        items = [value] if type(value) is item else value
        return tuple(items) if isinstance(items, list) and all(type(i) is item for i in items) else None
    if float in wanted and type(value) is int:
        return float(value)
    return value if type(value) in wanted else None


def _kind_name(kind: Any) -> str:
    text = str(kind)
    if "int" in text and "str" in text:
        return "a whole number or a string"
    for plain, words in (
        ("tuple[int", "a list of whole numbers"),
        ("tuple", "a list of strings"),
        ("str", "a string"),
        ("bool", "true or false"),
    ):
        if plain in text:
            return words
    return "a whole number" if "int" in text else "a number"


def _key(field: str) -> str:
    """A field's name in a recipe and on the command line."""
    return field.replace("_", "-")


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
