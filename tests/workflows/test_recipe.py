from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import Recorder

from featx.cli import main
from featx.errors import RecipeError
from featx.reporter import Reporter
from featx.workflows.recipe import (
    STEPS,
    ExtractStep,
    FitHeadStep,
    PromoteStep,
    Recipe,
    as_command,
    load_recipe,
    run_recipe,
)

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"

EVERY_KEY: dict[str, dict[str, Any]] = {
    "extract": {
        "data": "my photos",
        "backbone": "resnet18",
        "weights": "random",
        "layer": ["layer3", "layer4"],
        "stages": True,
        "pooling": "gem",
        "views": "flip",
        "dtype": "float16",
        "device": "cpu",
        "resize": 96,
        "crop": 80,
        "background": "black",
        "fast-decode": True,
        "nvjpeg": True,
        "precision": "bfloat16",
        "compute": "eager",
        "max-pixels": 1000,
        "batch-size": 5,
        "workers": 2,
        "rehash": True,
        "strict": True,
        "wait": True,
        "cache": "c",
        "out": "f.h5",
    },
    "fit-head": {
        "features": "f.h5",
        "model": "svm",
        "layer": ["layer3", "layer4"],
        "views": "10crop",
        "C": 0.25,
        "kernel": "rbf",
        "k": 3,
        "task": "classification",
        "class-weight": "balanced",
        "logit-adjustment": 0.5,
        "calibrate": "isotonic",
        "reject-below": 0.25,
        "precision": 0.75,
        "cv": 4,
        "repeat": 2,
        "shots": [1, 2],
        "group": "patient",
        "table": "t.csv",
        "report": True,
        "seed": 9,
        "device": "cuda:1",
        "cache": "c",
        "models": "m",
        "out": "h.safetensors",
    },
    "promote": {
        "head": "h.safetensors",
        "finetune": True,
        "epochs": 2,
        "lr": 0.5,
        "backbone-lr": 0.25,
        "layer-decay": 0.5,
        "from-layer": "layer4",
        "last": 2,
        "optimizer": "sgd",
        "clip": 2.5,
        "augment": "randaugment",
        "mixup": 0.5,
        "label-smoothing": 0.125,
        "class-weight": "balanced",
        "ema": 0.5,
        "cached-crops": 2,
        "compile": True,
        "interpolate": False,
        "repeats": 3,
        "tensorboard": True,
        "significance": 0.25,
        "batch-size": 7,
        "weight-decay": 0.0,
        "warmup": 0.25,
        "patience": 1,
        "crop-scale": 0.75,
        "flip": False,
        "train-bn": True,
        "seed": 3,
        "features": "f.h5",
        "backbone": "net.py:make",
        "weights": "w.pth",
        "device": "cpu",
        "workers": 4,
        "models": "m",
        "out": "p.safetensors",
    },
}
"""Every key of every table, with a value that is not its default."""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe's text to a file."""

    def recipe(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return recipe


def as_toml(name: str, values: dict[str, Any]) -> str:
    """One table."""
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n"


def faults_of(path: Path) -> tuple[str, ...]:
    """What ``load_recipe`` finds wrong."""
    with pytest.raises(RecipeError, match=r"recipe\.toml has \d+ faults?:\n  - ") as error:
        load_recipe(path)
    assert len(str(error.value).splitlines()) == len(error.value.faults) + 1
    return error.value.faults


@pytest.mark.parametrize("name", STEPS)
def test_every_field_of_a_step_can_be_set(name: str, write: Callable[[str], Path]) -> None:
    values = EVERY_KEY[name]
    step = load_recipe(write(as_toml(name, values))).steps[name]
    plain = {key.replace("-", "_"): tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    assert dataclasses.asdict(step) == plain
    for field in dataclasses.fields(step):
        assert plain[field.name] != field.default, f"{name}.{field.name} is tested with its default"


@pytest.mark.parametrize("name", STEPS)
def test_an_empty_table_is_a_step_of_defaults(name: str, write: Callable[[str], Path]) -> None:
    assert load_recipe(write(f"[{name}]\n")).steps == {name: STEPS[name]()}


def test_steps_run_in_the_order_of_the_work_however_they_are_written(write: Callable[[str], Path]) -> None:
    recipe = load_recipe(write("[promote]\n[fit-head]\n[extract]\n"))
    assert list(recipe.steps) == ["extract", "fit-head", "promote"]


def test_one_layer_needs_no_list(write: Callable[[str], Path]) -> None:
    assert load_recipe(write('[extract]\nlayer = "layer3"\n')).steps["extract"].layer == ("layer3",)


def test_a_whole_number_will_do_where_a_number_is_wanted(write: Callable[[str], Path]) -> None:
    recipe = load_recipe(write("[fit-head]\nC = 1\n[promote]\nlr = 2\n"))
    assert [type(v) for v in (recipe.steps["fit-head"].C, recipe.steps["promote"].lr)] == [float, float]
    assert recipe.steps["fit-head"].C == 1.0


@pytest.mark.parametrize(
    ("table", "line", "fault"),
    [
        ("fit-head", "seed = true", "[fit-head] seed is True; expected a whole number"),
        ("fit-head", "seed = 1.0", "[fit-head] seed is 1.0; expected a whole number"),
        ("fit-head", 'k = "3"', "[fit-head] k is '3'; expected a whole number"),
        ("fit-head", "C = true", "[fit-head] C is True; expected a number"),
        ("fit-head", 'C = "auto"', "[fit-head] C is 'auto'; expected a number"),
        ("fit-head", "model = 3", "[fit-head] model is 3; expected a string"),
        ("fit-head", "out = []", "[fit-head] out is []; expected a string"),
        ("promote", "flip = 1", "[promote] flip is 1; expected true or false"),
        ("promote", 'finetune = "yes"', "[promote] finetune is 'yes'; expected true or false"),
        ("promote", "warmup = 2020-01-01", "[promote] warmup is datetime.date(2020, 1, 1); expected a number"),
        ("extract", "layer = 3", "[extract] layer is 3; expected a list of strings"),
        ("extract", 'layer = ["a", 3]', "[extract] layer is ['a', 3]; expected a list of strings"),
        ("extract", "data = { path = 'x' }", "[extract] data is {'path': 'x'}; expected a string"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_what_was_expected(
    table: str, line: str, fault: str, write: Callable[[str], Path]
) -> None:
    assert faults_of(write(f"[{table}]\n{line}\n")) == (fault,)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[extrakt]", "[extrakt] is no step; did you mean extract?"),
        ("[fit_head]", "[fit_head] is no step; did you mean fit-head?"),
        ("[zzz]", "[zzz] is no step; expected one of extract, fit-head, promote"),
        ("[extract]\nbatch_size = 3", "[extract] batch_size is no option; did you mean batch-size?"),
        ("[fit-head]\nmodle = 'svm'", "[fit-head] modle is no option; did you mean model?"),
        ("[promote]\nfine-tune = true", "[promote] fine-tune is no option; did you mean finetune?"),
        ("extract = 3", "extract is 3; expected a table [extract]"),
        ("data = 'digits'", "[data] is no step; expected one of extract, fit-head, promote"),
    ],
)
def test_an_unknown_name_brings_the_one_that_was_meant(text: str, fault: str, write: Callable[[str], Path]) -> None:
    assert faults_of(write(text + "\n")) == (fault,)


def test_a_name_like_no_other_brings_all_there_are(write: Callable[[str], Path]) -> None:
    (fault,) = faults_of(write("[fit-head]\nqqqq = 1\n"))
    keys = (
        "features, model, layer, views, C, kernel, k, task, class-weight, logit-adjustment, "
        "calibrate, reject-below, precision, cv, repeat, shots, group, table, report, seed, device, cache, models, out"
    )
    assert fault == f"[fit-head] qqqq is no option; expected one of {keys}"


def test_all_faults_come_at_once(write: Callable[[str], Path]) -> None:
    path = write('[extract]\nlayers = "a"\nworkers = "all"\n[fit-head]\nC = []\n[promte]\nlr = 1\n')
    with pytest.raises(RecipeError, match="has 4 faults") as error:
        load_recipe(path)
    assert str(error.value) == (
        f"{path} has 4 faults:\n"
        "  - [promte] is no step; did you mean promote?\n"
        "  - [extract] layers is no option; did you mean layer?\n"
        "  - [extract] workers is 'all'; expected a whole number\n"
        "  - [fit-head] C is []; expected a number"
    )


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n"])
def test_a_recipe_without_steps_is_told_which_there_are(text: str, write: Callable[[str], Path]) -> None:
    fault = "there is no step; expected one or more of [extract], [fit-head], [promote]"
    assert faults_of(write(text)) == (fault,)


def test_a_file_that_is_not_toml_is_said_with_the_place(write: Callable[[str], Path]) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml is not TOML: .*line 2"):
        load_recipe(write("[extract]\ndata = digits\n"))


def test_a_file_that_is_not_text_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"x\.toml is not TOML"):
        load_recipe(tmp_path / "x.toml")


def test_a_recipe_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none\.toml: No such file or directory"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*: Is a directory"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("name", "step", "command"),
    [
        ("extract", ExtractStep(), "featx extract"),
        ("extract", ExtractStep(data="photos/"), "featx extract photos/"),
        ("extract", ExtractStep(data="my photos"), "featx extract 'my photos'"),
        ("extract", ExtractStep(layer=("a.1", "b")), "featx extract --layer a.1 --layer b"),
        ("extract", ExtractStep(batch_size=4, dtype="float16"), "featx extract --dtype float16 --batch-size 4"),
        ("fit-head", FitHeadStep(), "featx fit-head"),
        ("fit-head", FitHeadStep(model="svm", C=0.01), "featx fit-head --model svm -C 0.01"),
        ("fit-head", FitHeadStep("f.h5", C=1.0), "featx fit-head f.h5 -C 1.0"),
        ("promote", PromoteStep(), "featx promote"),
        ("promote", PromoteStep(finetune=True, flip=False), "featx promote --finetune --no-flip"),
        ("promote", PromoteStep("h", train_bn=True, lr=0.01), "featx promote h --lr 0.01 --train-bn"),
        ("promote", PromoteStep(features="f.h5"), "featx promote --features f.h5"),
    ],
)
def test_a_step_is_shown_as_its_command_without_what_is_default(name: str, step: Any, command: str) -> None:
    assert as_command(name, step) == command


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("left_out", [None, "first", "all"])
def test_the_command_line_reads_a_step_back_from_its_command(name: str, left_out: str | None) -> None:
    values = {k.replace("-", "_"): tuple(v) if isinstance(v, list) else v for k, v in EVERY_KEY[name].items()}
    if left_out == "first":
        values.pop(next(iter(values)))
    step = STEPS[name](**({} if left_out == "all" else values))
    words = shlex.split(as_command(name, step))
    assert words[:2] == ["featx", name]
    options = dict(main.main.commands[name].make_context(name, words[2:]).params)
    options.pop("as_json")
    assert STEPS[name](**options) == step


@pytest.mark.parametrize(
    ("step", "backbone"),
    [
        (ExtractStep(), "lenet5"),
        (ExtractStep(data="digits"), "lenet5"),
        (ExtractStep(data="photos"), "resnet50"),
        (ExtractStep(data="digits", backbone="vgg11"), "vgg11"),
    ],
)
def test_the_backbone_left_out_is_lenet5_for_digits_and_resnet50_for_the_rest(step: ExtractStep, backbone: str) -> None:
    assert step.backbone_name() == backbone


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The steps that ran and the progress they were given; each makes a file of its own and does nothing else."""
    calls: list[tuple[Any, Any]] = []

    def stand_in(**made: Path) -> Callable[..., SimpleNamespace]:
        def run(step: Any, reporter: Reporter) -> SimpleNamespace:
            calls.append((step, reporter))
            reporter.note(type(step).__name__)
            return SimpleNamespace(**made)

        return run

    monkeypatch.setattr(ExtractStep, "run", stand_in(file=Path("made.h5")))
    monkeypatch.setattr(FitHeadStep, "run", stand_in(path=Path("head.safetensors")))
    monkeypatch.setattr(PromoteStep, "run", stand_in(path=Path("model.safetensors")))
    return calls


def test_each_step_takes_what_the_one_before_made(ran: list[tuple[Any, Any]]) -> None:
    steps = {"extract": ExtractStep(), "fit-head": FitHeadStep(C=0.5), "promote": PromoteStep(epochs=3)}
    results = list(run_recipe(Recipe(steps)))
    assert [name for name, _ in results] == ["extract", "fit-head", "promote"]
    assert results[2][1].path == Path("model.safetensors")
    assert [step for step, _ in ran] == [
        ExtractStep(),
        FitHeadStep("made.h5", C=0.5),
        PromoteStep("head.safetensors", epochs=3),
    ]


def test_what_the_steps_have_to_say_is_passed_on(ran: list[tuple[Any, Any]]) -> None:
    told = Recorder()
    list(run_recipe(Recipe({"extract": ExtractStep(), "promote": PromoteStep()}), reporter=lambda _: told))
    assert told.notes == ["ExtractStep", "PromoteStep"]


def test_a_step_that_names_its_file_keeps_it(ran: list[tuple[Any, Any]]) -> None:
    steps = {"extract": ExtractStep(), "fit-head": FitHeadStep("mine.h5"), "promote": PromoteStep("mine.safetensors")}
    list(run_recipe(Recipe(steps)))
    assert [ran[1][0].features, ran[2][0].head] == ["mine.h5", "mine.safetensors"]


def test_steps_without_one_before_are_left_to_find_the_newest_file(ran: list[tuple[Any, Any]]) -> None:
    list(run_recipe(Recipe({"fit-head": FitHeadStep()})))
    list(run_recipe(Recipe({"extract": ExtractStep(), "promote": PromoteStep()})))
    assert [step for step, _ in ran] == [FitHeadStep(), ExtractStep(), PromoteStep()]


def test_a_step_runs_only_when_its_turn_is_asked_for(ran: list[tuple[Any, Any]]) -> None:
    running = run_recipe(Recipe({"extract": ExtractStep(), "fit-head": FitHeadStep()}))
    next(running)
    assert len(ran) == 1


def test_each_step_gets_a_reporter_of_its_own(ran: list[tuple[Any, Any]]) -> None:
    told = {"extract": Recorder(), "fit-head": Recorder()}
    list(run_recipe(Recipe({"extract": ExtractStep(), "fit-head": FitHeadStep()}), reporter=told.__getitem__))
    assert [reporter for _, reporter in ran] == list(told.values())


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_this_repository_loads_and_begins_with_its_command(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# featx run pipelines/{path.name}"
    assert load_recipe(path).steps
