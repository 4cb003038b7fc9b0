"""Options without an effect: a usage error that names what gives them one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import featx

from featx.cli.main import main
from featx.cli.recipe import load_recipe, run_recipe
from featx.errors import RecipeError

USELESS = [
    ("promote h --last 3 --lr 0.1 --tensorboard", "--lr, --last and --tensorboard have no effect without --finetune"),
    ("promote h --lr 0.001", "--lr has no effect without --finetune"),  # even at its default
    ("promote h --no-flip", "--no-flip has no effect without --finetune"),
    ("promote h --train-bn --seed 1", "--train-bn and --seed have no effect without --finetune"),
    (
        "promote h --finetune --last 0 --backbone-lr 1",
        "--backbone-lr has no effect with --last 0, which trains the head alone",
    ),
    (
        "promote h --finetune --last 1 --layer-decay 0.5",
        "--layer-decay has no effect with --last below 2, which trains",
    ),
    (
        "promote h --finetune --augment none --crop-scale 0.5 --flip",
        "--crop-scale and --flip have no effect with --augment",
    ),
    ("promote h --finetune --cached-crops 2", "--cached-crops has no effect without --last or --from"),
    ("promote h -o x --models m", "--models has no effect with both HEAD and --out"),
    ("fit-head --table t.csv", "--table has no effect without --group"),
    ("fit-head --images there", "--images has no effect without --report"),
    (
        "fit-head --model knn --device cuda",
        "--device has no effect without --model logreg, svm, linear, bilinear, mlp or auto",
    ),
    ("fit-head x.h5 --cache there", "--cache has no effect with FEATURES, which is a file of any folder"),
    ("fit-head -o x --models there", "--models has no effect with --out, which is a file of any folder"),
    (
        "extract digits --fast-decode --background red",
        "--background and --fast-decode have no effect on the built-in digits",
    ),
    ("fit-head --model knn --kernel linear", "--kernel has no effect without --model svm"),
    ("fit-head --repeat 1", "--repeat has no effect without --cv or --shots"),
    ("advise x.h5 --cache there", "--cache has no effect with a feature file"),
    ("extract --nvjpeg", "--nvjpeg has no effect on the built-in digits"),
    ("rank digits -b lenet5 --table t.csv", "--table has no effect without --group"),
    ("rank digits -b lenet5 -o x.png --models m", "--models has no effect with --out"),
    ("verify x.h5 --device cpu --weights w", "--weights and --device have no effect without --recompute"),
    ("cache rm x.h5 --cache there", "--cache has no effect with FILES"),
    ("cache --json rm", "--json has no effect before rm; give it after"),
]


@pytest.mark.parametrize(("line", "message"), USELESS)
def test_an_option_without_an_effect_is_a_usage_error(line: str, message: str, in_tmp: Path) -> None:
    result = CliRunner().invoke(main, line.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr.replace("\n", " ")
    assert list(in_tmp.iterdir()) == []


def test_what_a_file_makes_useless_is_a_usage_error_too(fitted: Path, split_photos: Path) -> None:
    featx("promote", fitted, "-o", "model.safetensors")
    image = next(split_photos.rglob("*.png"))
    for options, message in [
        ((fitted, "--models", "there"), "--models has no effect with MODEL, which is a file of any folder"),
        (
            ("model.safetensors", "--cache", "cache"),
            "--cache has no effect with a promoted model, which uses no features",
        ),
        (
            ("model.safetensors", "--weights", "random"),
            "--weights has no effect with a promoted model, which holds its",
        ),
    ]:
        for command, data in (("predict", image), ("evaluate", split_photos)):
            assert message in featx(command, *options, data, status=2).stderr


def test_a_recipe_is_told_of_every_option_without_an_effect_before_its_first_step(in_tmp: Path) -> None:
    Path("r.toml").write_text(
        "[extract]\ndata = 'digits'\nfast-decode = true\n[fit-head]\ntable = 't.csv'\n"
        "[promote]\nlast = 3\nlr = 0.1\ntensorboard = true\n"
    )
    with pytest.raises(RecipeError, match="the recipe has 3 faults") as caught:
        list(run_recipe(load_recipe("r.toml")))
    assert [fault.partition(",")[0] for fault in caught.value.faults] == [
        "[extract] --fast-decode has no effect on the built-in digits",
        "[fit-head] --table has no effect without --group",
        "[promote] --lr",
    ]
    assert "--lr, --last and --tensorboard have no effect without --finetune" in caught.value.faults[2]
    assert [path.name for path in in_tmp.iterdir()] == ["r.toml"]
