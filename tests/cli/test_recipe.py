from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from made import Recorder

from featx.cli.job import JobCommand
from featx.cli.main import main
from featx.cli.recipe import STEPS, Recipe, Step, load_recipe, run_recipe
from featx.errors import RecipeError
from featx.reporter import Reporter

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"

EVERY_KEY: dict[str, dict[str, Any]] = {
    "extract": {
        "data": "my photos",
        "path-column": "file",
        "label-column": "species",
        "split-column": "set",
        "label-columns": ["cat", "dog, small"],
        "label-separator": ",",
        "box-columns": ["x", "y", "w", "h"],
        "image-column": "picture",
        "root": "more photos",
        "separator": ";",
        "label-pattern": "(?P<label>[a-z]+)",
        "group-level": -1,
        "backbone": "resnet18",
        "weights": "random",
        "layer": ["layer3", "layer4"],
        "stages": True,
        "pooling": "gem",
        "views": "flip",
        "dtype": "float16",
        "device": "cpu",
        "devices": "0,1",
        "size": "160x80",
        "fit": "pad",
        "in-chans": 1,
        "resize": 96,
        "crop": 80,
        "value-range": "12",
        "bands": "4,3,2",
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
        "shard": "3/16",
        "split-rows": 1000,
        "ray": "auto",
        "ray-actors": 2,
        "ray-gpus": 0.5,
        "cache": "c",
        "out": "f.h5",
    },
    "fit-head": {
        "features": ["f.h5", "g.h5"],
        "with-backbones": ["resnet50"],
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
        "target-precision": 0.75,
        "conformal": 0.125,
        "conformal-per-class": True,
        "calibrate-on": "val",
        "prompts": ["a {}", "the {}"],
        "class-names": "names.json",
        "anchor": "zeroshot",
        "cv": 4,
        "repeat": 2,
        "shots": [1, 2],
        "group": "patient",
        "table": "t.csv",
        "compare": "earlier.safetensors",
        "predictions": "each.csv",
        "report": True,
        "images": ["more photos"],
        "seed": 9,
        "device": "cuda:1",
        "cache": "c",
        "models": "m",
        "track": ["mlflow", "wandb"],
        "experiment": "pets",
        "out": "h.safetensors",
    },
    "promote": {
        "head": "h.safetensors",
        "finetune": True,
        "part": "1",
        "search": 8,
        "budget": 300.0,
        "teacher": "teacher.safetensors",
        "teacher-weight": 0.25,
        "temperature": 2.5,
        "from-random": 3,
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
        "table": "t.csv",
        "backbone": "net.py:make",
        "weights": "w.pth",
        "device": "cpu",
        "workers": 4,
        "models": "m",
        "track": ["tensorboard", "mlflow"],
        "experiment": "pets",
        "out": "p.safetensors",
    },
}
"""Every key of every table, with a value that is not its default."""

COMMANDS = {
    "hymenoptera": (
        "featx extract ../shared/datasets/hymenoptera --backbone mobilenet_v1_075 "
        "--weights ../shared/weights/mobilenet_v1_075.safetensors",
        "featx fit-head --model logreg",
        "featx promote --finetune",
    ),
    "quickstart": (
        "featx extract --backbone lenet5",
        "featx fit-head --model logreg",
        "featx promote --finetune --no-flip",
    ),
    "trashnet": (
        "featx extract ../shared/datasets/trashnet --backbone mobilenet_v1_075 "
        "--weights ../shared/weights/mobilenet_v1_075.safetensors",
        "featx fit-head --model logreg",
        "featx promote --finetune",
    ),
    "every key": (
        "featx extract 'my photos' --path-column file --label-column species --split-column set "
        "--label-columns 'cat,\"dog, small\"' --label-separator , --box-columns x,y,w,h --image-column picture "
        "--root 'more photos' --separator ';' --label-pattern '(?P<label>[a-z]+)' --group-level -1 "
        "--backbone resnet18 --weights random "
        "--layer layer3 --layer layer4 --stages --pooling gem --views flip "
        "--dtype float16 --device cpu --devices 0,1 --size 160x80 --fit pad --in-chans 1 "
        "--resize 96 --crop 80 --value-range 12 --bands 4,3,2 --background black "
        "--max-pixels 1000 --fast-decode "
        "--nvjpeg --precision bfloat16 --compute eager --batch-size 5 --workers 2 --rehash --strict --wait --shard 3/16 "
        "--split-rows 1000 --ray auto --ray-actors 2 --ray-gpus 0.5 "
        "--cache c --out f.h5",
        "featx fit-head f.h5 g.h5 --with resnet50 --model svm --layer layer3 --layer layer4 "
        "--views 10crop -C 0.25 --kernel rbf --k 3 "
        "--task classification --class-weight balanced --logit-adjustment 0.5 --calibrate isotonic --reject-below 0.25 "
        "--target-precision 0.75 --conformal 0.125 --conformal-per-class --calibrate-on val "
        "--prompt 'a {}' --prompt 'the {}' --class-names names.json --anchor zeroshot --cv 4 "
        "--repeat 2 --shots 1,2 --compare earlier.safetensors "
        "--predictions each.csv --group patient --table t.csv --report --images 'more photos' --seed 9 "
        "--device cuda:1 --cache c --models m --track mlflow --track wandb --experiment pets --out h.safetensors",
        "featx promote h.safetensors --finetune --teacher teacher.safetensors --epochs 2 --lr 0.5 --backbone-lr 0.25 "
        "--layer-decay 0.5 --from-layer layer4 --part 1 --last 2 --train-bn --optimizer sgd --weight-decay 0.0 --clip 2.5 "
        "--batch-size 7 --warmup 0.25 --patience 1 --augment randaugment --crop-scale 0.75 --no-flip --mixup 0.5 "
        "--label-smoothing 0.125 --class-weight balanced --ema 0.5 --cached-crops 2 --teacher-weight 0.25 --temperature "
        "2.5 --compile --no-interpolate --significance 0.25 --repeats 3 --search 8 --budget 300.0 --from-random 3 --seed 3 "
        "--features f.h5 "
        "--table t.csv --backbone net.py:make --weights w.pth --device cpu --workers 4 --tensorboard "
        "--track tensorboard --track mlflow --experiment pets --models m --out p.safetensors",
    ),
}
"""The commands of the recipes of this repository, and of one with every key: recorded when recipes had a parser of their own,
but for the two options that have been renamed since."""


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


def options_of(name: str, **given: Any) -> dict[str, Any]:
    """The options of a command: its defaults, but for those that are given."""
    params = STEPS[name].make_context(name, []).params
    params = {param.name: params[param.name] for param in STEPS[name].job_params}
    assert given.keys() <= params.keys()
    return {**params, **given}


def as_options(table: dict[str, Any]) -> dict[str, Any]:
    """The values of a table by the names of the command's parameters."""
    return {key.replace("-", "_"): tuple(v) if isinstance(v, list) else v for key, v in table.items()}


@pytest.mark.parametrize("name", STEPS)
def test_every_option_of_a_step_can_be_set(name: str, write: Callable[[str], Path]) -> None:
    values = EVERY_KEY[name]
    step = load_recipe(write(as_toml(name, values))).steps[name]
    plain = as_options(values)
    assert step.command is STEPS[name]
    assert step.options == plain
    for option, default in options_of(name).items():
        assert plain[option] != default, f"{option} of {name} is tested with its default"


@pytest.mark.parametrize("name", STEPS)
def test_an_empty_table_is_a_step_of_defaults(name: str, write: Callable[[str], Path]) -> None:
    assert load_recipe(write(f"[{name}]\n")).steps == {name: Step(STEPS[name], options_of(name))}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_the_recorded_commands(name: str, write: Callable[[str], Path]) -> None:
    path = PIPELINES / f"{name}.toml"
    if name == "every key":
        path = write("".join(as_toml(table, values) for table, values in EVERY_KEY.items()))
    result = CliRunner().invoke(main, ["run", str(path), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert tuple(result.stdout.splitlines()) == COMMANDS[name]


def test_steps_run_in_the_order_of_the_work_however_they_are_written(write: Callable[[str], Path]) -> None:
    recipe = load_recipe(write("[promote]\n[fit-head]\n[extract]\n"))
    assert list(recipe.steps) == ["extract", "fit-head", "promote"]


def test_one_layer_needs_no_list(write: Callable[[str], Path]) -> None:
    assert load_recipe(write('[extract]\nlayer = "layer3"\n')).steps["extract"].options["layer"] == ("layer3",)


def test_a_whole_number_will_do_where_a_number_is_wanted(write: Callable[[str], Path]) -> None:
    recipe = load_recipe(write("[fit-head]\nC = 1\n[promote]\nlr = 2\n"))
    values = (recipe.steps["fit-head"].options["C"], recipe.steps["promote"].options["lr"])
    assert [type(value) for value in values] == [float, float]
    assert values[0] == 1.0


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
        ("fit-head", "shots = [1, '2']", "[fit-head] shots is [1, '2']; expected a list of whole numbers"),
        ("extract", "batch-size = 1.5", "[extract] batch-size is 1.5; expected a whole number or a string"),
        ("extract", "layer = 3", "[extract] layer is 3; expected a list of strings"),
        ("extract", 'layer = ["a", 3]', "[extract] layer is ['a', 3]; expected a list of strings"),
        ("extract", "data = { path = 'x' }", "[extract] data is {'path': 'x'}; expected a list of strings"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_what_was_expected(
    table: str, line: str, fault: str, write: Callable[[str], Path]
) -> None:
    assert faults_of(write(f"[{table}]\n{line}\n")) == (fault,)


@pytest.mark.parametrize(
    ("table", "line", "fault"),
    [
        ("extract", "dtype = 'int8'", "[extract] dtype: 'int8' is not one of 'float32', 'float16'"),
        ("extract", "batch-size = 'most'", "[extract] batch-size: 'most' is neither a whole number above 0 nor auto"),
        ("extract", "resize = 4000", "[extract] resize: 4000 is not in the range 0<=x<=2048"),
        ("fit-head", "shots = [2, 0]", "[fit-head] shots: 0 is not in the range x>=1"),
        ("fit-head", "reject-below = 1.5", "[fit-head] reject-below: 1.5 is not in the range 0<x<=1"),
        ("promote", "epochs = 0", "[promote] epochs: 0 is not in the range x>=1"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_found_before_anything_runs(
    table: str, line: str, fault: str, write: Callable[[str], Path]
) -> None:
    assert faults_of(write(f"[{table}]\n{line}\n")) == (fault,)


def test_values_may_begin_with_a_dash_or_be_empty(write: Callable[[str], Path]) -> None:
    recipe = load_recipe(write('[extract]\ndata = "--json"\nout = "-f.h5"\nlayer = ["-a", ""]\ncache = ""\n'))
    options = recipe.steps["extract"].options
    assert [options[name] for name in ("data", "out", "layer", "cache")] == ["--json", "-f.h5", ("-a", ""), ""]


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
        ("[extract]\njson = true", "[extract] json is no option; expected one of data, path-column, "),
        ("data = 'digits'", "[data] is no step; expected one of extract, fit-head, promote"),
    ],
)
def test_an_unknown_name_brings_the_one_that_was_meant(text: str, fault: str, write: Callable[[str], Path]) -> None:
    (found,) = faults_of(write(text + "\n"))
    assert found == fault or (fault.endswith(", ") and found.startswith(fault))


def test_a_name_like_no_other_brings_all_there_are(write: Callable[[str], Path]) -> None:
    (fault,) = faults_of(write("[fit-head]\nqqqq = 1\n"))
    keys = (
        "features, with-backbones, model, layer, views, C, kernel, k, task, class-weight, logit-adjustment, "
        "calibrate, reject-below, target-precision, conformal, conformal-per-class, calibrate-on, "
        "prompts, class-names, anchor, cv, repeat, shots, "
        "compare, predictions, group, table, report, images, seed, device, cache, models, track, experiment, out"
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


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 5000, r"recipe\.toml is not TOML that can be read: it is nested too deeply"),
        ("a" + ".a" * 100_000 + "=1", r"recipe\.toml is not TOML that can be read: it is nested too deeply"),
        ("9" * 5000, r"recipe\.toml is not TOML: Exceeds the limit \(4300 digits\)"),
    ],
    ids=["deep", "dotted", "long"],
)
def test_a_value_that_python_cannot_read_is_said(value: str, message: str, write: Callable[[str], Path]) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(f"[extract]\nresize = {value}\n"))


def test_a_recipe_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none\.toml: No such file or directory"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match=r"is a folder; expected a recipe, a TOML file"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("name", "given", "command"),
    [
        ("extract", {}, "featx extract"),
        ("extract", {"data": "photos/"}, "featx extract photos/"),
        ("extract", {"data": "my photos"}, "featx extract 'my photos'"),
        ("extract", {"layer": ("a.1", "b")}, "featx extract --layer a.1 --layer b"),
        ("extract", {"batch_size": 4, "dtype": "float16"}, "featx extract --dtype float16 --batch-size 4"),
        ("fit-head", {}, "featx fit-head"),
        ("fit-head", {"model": "svm", "C": 0.01}, "featx fit-head --model svm -C 0.01"),
        ("fit-head", {"features": "f.h5", "C": 1.0}, "featx fit-head f.h5 -C 1.0"),
        ("promote", {}, "featx promote"),
        ("promote", {"finetune": True, "flip": False}, "featx promote --finetune --no-flip"),
        ("promote", {"head": "h", "train_bn": True, "lr": 0.01}, "featx promote h --lr 0.01 --train-bn"),
        ("promote", {"features": "f.h5"}, "featx promote --features f.h5"),
    ],
)
def test_a_step_is_shown_as_its_command_without_what_is_default(name: str, given: dict[str, Any], command: str) -> None:
    assert Step(STEPS[name], options_of(name, **given)).as_command() == command


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("left_out", [None, "first", "all"])
def test_the_command_line_reads_a_step_back_from_its_command(name: str, left_out: str | None) -> None:
    values = as_options(EVERY_KEY[name])
    if left_out == "first":
        values.pop(next(iter(values)))
    step = Step(STEPS[name], options_of(name, **({} if left_out == "all" else values)))
    words = shlex.split(step.as_command())
    assert words[:2] == ["featx", name]
    params = main.commands[name].make_context(name, words[2:]).params
    assert {param.name: params[param.name] for param in STEPS[name].job_params} == step.options


RESULTS = {
    "extract": SimpleNamespace(file=Path("made.h5")),
    "fit-head": SimpleNamespace(path=Path("head.safetensors")),
    "promote": SimpleNamespace(path=Path("model.safetensors")),
}


class Jobs:
    """Commands that stand in for those of the steps: each records its options and gives a result with a file of its own.

    Attributes:
        calls: (options, reporter) of each that has run.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], Reporter]] = []

    def recipe(self, **steps: dict[str, Any]) -> Recipe:
        """A recipe of such commands, with the options that are given to each."""
        named = {name.replace("_", "-"): given for name, given in steps.items()}
        return Recipe({name: Step(self._command(name), options_of(name, **given)) for name, given in named.items()})

    def _command(self, name: str) -> JobCommand:
        def work(reporter: Reporter, **options: Any) -> SimpleNamespace:
            self.calls.append((options, reporter))
            reporter.note(name)
            return RESULTS[name]

        params, check = list(STEPS[name].job_params), STEPS[name].check
        return JobCommand(name, callback=work, params=params, check=check, show=print, progress=(name, "images"))


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def test_each_step_takes_what_the_one_before_made(jobs: Jobs) -> None:
    results = list(run_recipe(jobs.recipe(extract={}, fit_head={"C": 0.5}, promote={"epochs": 3})))
    assert [name for name, _ in results] == ["extract", "fit-head", "promote"]
    assert results[2][1].path == Path("model.safetensors")
    assert [options for options, _ in jobs.calls] == [
        options_of("extract"),
        options_of("fit-head", features=("made.h5",), C=0.5),
        options_of("promote", head="head.safetensors", epochs=3),
    ]


def test_the_notes_of_steps_reach_the_reporter(jobs: Jobs) -> None:
    recorder = Recorder()
    list(run_recipe(jobs.recipe(extract={}, promote={}), reporter=lambda _: recorder))
    assert recorder.notes == ["extract", "promote"]


def test_a_step_that_names_its_file_keeps_it(jobs: Jobs) -> None:
    recipe = jobs.recipe(extract={}, fit_head={"features": "mine.h5"}, promote={"head": "mine.safetensors"})
    list(run_recipe(recipe))
    assert [jobs.calls[1][0]["features"], jobs.calls[2][0]["head"]] == ["mine.h5", "mine.safetensors"]


def test_steps_without_one_before_are_left_to_find_the_newest_file(jobs: Jobs) -> None:
    list(run_recipe(jobs.recipe(fit_head={})))
    list(run_recipe(jobs.recipe(extract={}, promote={})))
    expected = [options_of("fit-head"), options_of("extract"), options_of("promote")]
    assert [options for options, _ in jobs.calls] == expected


def test_a_step_runs_only_when_its_turn_comes(jobs: Jobs) -> None:
    running = run_recipe(jobs.recipe(extract={}, fit_head={}))
    next(running)
    assert len(jobs.calls) == 1


def test_each_step_gets_a_reporter_of_its_own(jobs: Jobs) -> None:
    recorders = {"extract": Recorder(), "fit-head": Recorder()}
    list(run_recipe(jobs.recipe(extract={}, fit_head={}), reporter=recorders.__getitem__))
    assert [reporter for _, reporter in jobs.calls] == list(recorders.values())


def test_options_that_exclude_one_another_are_all_found_before_the_first_step_runs(jobs: Jobs) -> None:
    recipe = jobs.recipe(
        extract={"fast_decode": True, "nvjpeg": True},
        fit_head={"repeat": 2},
        promote={"last": 2, "from_layer": "layer4"},
    )
    with pytest.raises(RecipeError, match="the recipe has 3 faults:") as error:
        list(run_recipe(recipe))
    extract, fit_head, promote = error.value.faults
    assert extract == "[extract] fast-decode and nvjpeg are two ways to decode a JPEG; expected one of them"
    assert fit_head.startswith("[fit-head] repeat is the number of times that cv or shots are repeated; ")
    assert promote.startswith("[promote] --from and --last ")
    assert jobs.calls == []


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_this_repository_loads_and_begins_with_its_command(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# featx run pipelines/{path.name}"
    assert load_recipe(path).steps
