"""What ``same_files.py`` runs: commands of featx that between them reach every kind of file, and the inputs they need.

Paths are relative to the folder that a command runs in. ``../shared`` are the real images and weights, ``../home`` is
``$FEATX_HOME`` with the built-in digits, and ``../inputs`` is what ``write_inputs`` makes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

FIRST = "extract digits --cache ../inputs/refused.toml/cache"
"""Writes the digits and then fails, because a file is where its folder should be."""

QUICK = """
# Features: stages, the same again, views, a table with groups
extract digits --compute eager --stages --json
extract digits --compute eager --stages
extract ../inputs/groups.csv --backbone lenet5 --compute eager --views flip --layer features.3:max --dtype float16 --json
extract ../inputs/few.csv --backbone lenet5 --compute eager --json
extract ../shared/datasets/hymenoptera --backbone mobilenet_v1_075 --weights WEIGHTS --stages --compute eager --json

# Heads of every kind
fit-head cache/digits--lenet5.h5 --report --cv 3 --json
fit-head cache/digits--lenet5.h5 --model linear --json
fit-head cache/digits--lenet5.h5 --model svm --json
fit-head cache/digits--lenet5.h5 --model ridge --precision 0.99 -o models/digits--lenet5--ridge.safetensors --json
fit-head cache/digits--lenet5.h5 --model knn --json
fit-head cache/digits--lenet5.h5 --model centroid --calibrate isotonic --json
fit-head cache/few--lenet5.h5 --model mlp --json
fit-head cache/groups--lenet5.h5 --group person --cv 3 -o models/groups--lenet5--flip--logreg.safetensors --json
fit-head cache/hymenoptera--mobilenet_v1_075.h5 --layer best --shots 2,5 --repeat 2 --report --json

# Networks
promote models/digits--lenet5--logreg.safetensors --finetune --epochs 1 --no-flip -o models/tuned.safetensors --json
promote models/digits--lenet5--logreg.safetensors --finetune --epochs 2 --last 1 --views 2 -o models/last.safetensors --json

# What is made of them
predict models/digits--lenet5--logreg.safetensors ../inputs/odd --top 2
evaluate models/last.safetensors digits --json
advise digits --json
info cache/digits--lenet5.h5 --json
info models/digits--lenet5--ridge.safetensors --json
info models/tuned.safetensors
verify cache/digits--lenet5.h5 --json
cache --json
backbones lenet5 --json
PIPELINES
run ../inputs/refused.toml --dry-run

# What fails
WORLD_SIZE=2 info cache/digits--lenet5.h5
extract no-such-folder
fit-head no-such-file.h5 --json
info ../inputs/own.py
predict models/digits--lenet5--logreg.safetensors
extract --no-such-option
fit-head --model no-such-kind
no-such-command
"""

FULL = """
# Features: engines, decoders, transforms, kinds of file, networks
extract digits --compute eager --json
extract ../inputs/few.csv --backbone lenet5 --compute onnxruntime --cache onnxruntime --json
extract ../inputs/few.csv --backbone lenet5 --compute openvino --cache openvino --json
extract ../inputs/several.csv --backbone lenet5 --compute eager --json
extract ../inputs/numbers.tsv --backbone lenet5 --compute eager --json
extract ../inputs/splits.jsonl --backbone lenet5 --compute eager --json
extract ../inputs/splits.jsonl --backbone lenet5 --compute eager --strict --rehash --out cache/strict.h5 --json
extract ../inputs/odd --backbone lenet5 --weights random --compute eager --background black --resize 40 --json
extract ../inputs/odd --backbone mobilenet_v1_075 --weights WEIGHTS --compute eager --views 10crop --resize 250 --json
extract ../inputs/odd --backbone mobilenet_v1_075 --weights WEIGHTS --compute eager --fast-decode --out cache/fast.h5 --json
extract ../inputs/odd --backbone ../inputs/own.py:network --compute eager --batch-size 4 --out cache/own.h5 --json
extract ../inputs/odd --backbone timm/vit_tiny_patch16_224 --weights random --compute eager --layer blocks.2:avg+cls --json
extract ../inputs/odd --backbone resnet18 --weights random --compute eager --crop 96 --pooling gem --layer layer3 --json
extract ../inputs/photos.csv --backbone mobilenet_v1_075 --weights WEIGHTS --views flip --compute eager --json
extract ../shared/datasets/trashnet --backbone mobilenet_v1_075 --weights WEIGHTS --layer features.9:gem --compute eager --json

# Heads: tasks, options, the choice of kind and layer
fit-head cache/several--lenet5.h5 --json
fit-head cache/several--lenet5.h5 --model knn --report --json
fit-head cache/several--lenet5.h5 --model ridge --reject-below 0.6 --json
fit-head cache/numbers--lenet5.h5 --task regression --model ridge --report --cv 3 --json
fit-head cache/numbers--lenet5.h5 --task regression --model knn --json
fit-head cache/splits--lenet5.h5 --class-weight balanced --logit-adjustment 1 --calibrate temperature --json
fit-head cache/few--lenet5.h5 --model auto --cv 2 --json
fit-head cache/digits--lenet5.h5 --model svm --kernel rbf --json
fit-head cache/digits--lenet5.h5 --model knn --k 3 --table ../inputs/groups.csv --group person -o models/no.safetensors
fit-head cache/digits--lenet5.h5 --layer features.3 --layer penultimate --json
fit-head cache/groups--lenet5.h5 --layer features.3:max --model svm -C 0.1 --seed 1 --json
fit-head cache/hymenoptera--mobilenet_v1_075.h5 --json
fit-head cache/photos--mobilenet_v1_075.h5 --json
fit-head cache/photos--mobilenet_v1_075.h5 --views plain --json
fit-head cache/hymenoptera--mobilenet_v1_075.h5 --model ridge --shots 1,5 --repeat 3 --seed 3 --json
fit-head cache/hymenoptera--mobilenet_v1_075.h5 --model svm --cv 3 --json
fit-head cache/hymenoptera--mobilenet_v1_075.h5 --model knn --json
fit-head cache/hymenoptera--mobilenet_v1_075.h5 --model centroid --report
fit-head cache/trashnet--mobilenet_v1_075.h5 --report --cv 3 --precision 0.9 --json
fit-head cache/trashnet--mobilenet_v1_075.h5 --layer features.9:gem --model ridge --json

# Networks: inner layers, views, other ways to train, other splits, a recipe
promote models/digits--lenet5--svm.safetensors
promote models/photos--mobilenet_v1_075--flip--logreg.safetensors --finetune --epochs 1 --last 1 --views 1 \
-o models/photos--mobilenet_v1_075--flip--logreg--promoted.safetensors --json
promote models/hymenoptera--mobilenet_v1_075--logreg.safetensors --json
promote models/digits--lenet5--features.3+penultimate--logreg.safetensors --json
promote models/groups--lenet5--flip--logreg.safetensors --finetune --epochs 3 --no-flip --repeats 2 --lr 0.003 --json
promote models/digits--lenet5--svm.safetensors --finetune --epochs 1 --from features.6 --views 0 --optimizer sgd --ema 0.9 \
--augment randaugment --mixup 0.2 --label-smoothing 0.1 --train-bn --class-weight balanced -o models/ways.safetensors --json
promote models/digits--lenet5--knn.safetensors
run ../inputs/small.toml --json
run ../inputs/small.toml --dry-run

# What is made of them
predict models/last.safetensors ../inputs/odd --json
predict models/several--lenet5--logreg.safetensors ../inputs/odd
predict models/numbers--lenet5--ridge.safetensors ../inputs/odd --json
predict models/photos--mobilenet_v1_075--flip--logreg--promoted.safetensors ../inputs/odd --top 2 --json
evaluate models/hymenoptera--mobilenet_v1_075--logreg.safetensors ../shared/datasets/hymenoptera --json
evaluate models/several--lenet5--logreg.safetensors ../inputs/several.csv --split all --json
evaluate models/digits--lenet5--logreg.safetensors ../shared/datasets/hymenoptera
rank digits --backbone lenet5 --json
rank ../shared/datasets/hymenoptera --backbone mobilenet_v1_075=WEIGHTS --backbone lenet5 --json
advise cache/hymenoptera--mobilenet_v1_075.h5 --weights WEIGHTS --json
info cache/splits--lenet5.h5 --failed
info cache/hymenoptera--mobilenet_v1_075.h5
info models/several--lenet5--knn.safetensors --json
info models/photos--mobilenet_v1_075--flip--logreg--promoted.safetensors --json
verify cache/splits--lenet5.h5 --recompute 1000 --json
DAMAGE cache/few--lenet5.h5 cache/damaged.h5
verify cache/damaged.h5 --json
fit-head cache/damaged.h5
DAMAGE models/digits--lenet5--svm.safetensors models/damaged.safetensors
info models/damaged.safetensors
predict models/damaged.safetensors ../inputs/odd
cache rm cache/damaged.h5 --yes --json
cache rm --yes --json
cache
backbones mobilenet_v1 --json
backbones mobilenet_v1_075 --layers --json
backbones lenet5 --layers
HELP
"""

GROUPS = (
    "extract",
    "fit-head",
    "promote",
    "predict",
    "evaluate",
    "rank",
    "advise",
    "info",
    "verify",
    "cache",
    "cache rm",
)

_OWN = '''"""A network of one's own."""

import torch
from torch import nn


def network() -> nn.Module:
    """Of random weights, the same each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
'''

_SMALL = """
[extract]
data = "../inputs/splits.jsonl"
backbone = "lenet5"
compute = "eager"
cache = "recipe"

[fit-head]
model = "ridge"
{precision} = 0.95
models = "recipe"

[promote]
finetune = true
epochs = 1
last = 1
{views} = 1
models = "recipe"
"""

_REFUSED = """
[extract]
dat = "digits"
batch-size = 1.5

[promot]
"""


def commands(weights: str, pipelines: list[str], *, quick: bool) -> list[str]:
    """All commands in order, without ``featx``.

    Args:
        weights: file of the weights of ``mobilenet_v1_075``.
        pipelines: recipes of the project.
        quick: without the slower ones.
    """
    text = QUICK if quick else f"{QUICK}\n{FULL}"
    text = text.replace("WEIGHTS", weights).replace("\\\n", "")
    text = text.replace("PIPELINES", "\n".join(f"run {path} --dry-run --json" for path in pipelines))
    text = text.replace("HELP", "\n".join(f"{group} --help" for group in GROUPS))
    return [FIRST, *(line for line in text.splitlines() if line and not line.startswith("#"))]


def write_inputs(folder: Path, keys: Mapping[str, str]) -> None:
    """Images of many formats, a network, recipes.

    Args:
        folder: for all of it.
        keys: how a recipe spells "precision" of fit-head and "views" of promote.
    """
    _write_images(folder / "odd")
    (folder / "own.py").write_text(_OWN)
    (folder / "small.toml").write_text(_SMALL.format(**keys))
    (folder / "refused.toml").write_text(_REFUSED)


def _write_images(folder: Path) -> None:
    """Of two classes: grey, 16 bits, a palette, alpha, CMYK, turned by EXIF, large, long, and some that cannot be read."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 80, 4), dtype=np.uint8)
    colour, alpha = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
    first, second = folder / "first", folder / "second"
    colour.save(first / "plain.jpg")
    colour.convert("L").save(first / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(first / "deep.png")
    colour.quantize(16).save(first / "palette.png")
    colour.resize((1600, 1200)).save(first / "large.jpg")
    alpha.save(second / "alpha.png")
    colour.convert("CMYK").save(second / "inks.jpg")
    colour.save(second / "turned.jpg", exif=exif)
    colour.save(second / "web.webp", lossless=True)
    colour.resize((400, 8)).save(second / "long.bmp")
    (second / "cut.jpg").write_bytes((first / "plain.jpg").read_bytes()[:1000])
    (second / "text.png").write_text("no image\n")


def write_tables(folder: Path, digits: Path, photographs: Path) -> None:
    """Tables of every fourth of the built-in digits, each with what its name says, and one of photographs.

    Some of the digits have no label, and one cannot be read.

    Args:
        folder: for the tables; ``write_inputs`` has been there.
        digits: the folder of the digits.
        photographs: a folder of photographs by split and class; ``photos.csv`` names every fifth.
    """
    photos = ["path,label,split"]
    for number, photo in enumerate(sorted(photographs.glob("*/*/*.jpg"))[::5]):
        split = ("test", "val", "train", "train")[number % 4]
        photos.append(f"{os.path.relpath(photo, folder)},{photo.parent.name},{split}")
    found = [(os.path.relpath(path, folder), int(path.parent.name)) for path in sorted(digits.rglob("*.png"))[::4]]
    lines: dict[str, list[str]] = {
        "groups.csv": ["path,label,person"], "several.csv": ["path,label"], "numbers.tsv": ["path\tlabel"],
        "splits.jsonl": [], "few.csv": ["path,label"], "photos.csv": photos,
    }  # fmt: skip
    for number, (path, digit) in enumerate([*found, ("odd/second/text.png", 0)]):
        several = {"odd": digit % 2, "big": digit > 4, "round": digit in (0, 8)}
        said = "|".join(name for name, holds in several.items() if holds) or "|"
        split = "test" if number % 5 == 0 else "val" if number % 5 == 1 else "train"
        label = "" if number % 11 == 0 else f"={digit}" if digit == 3 else str(digit)
        lines["groups.csv"].append(f"{path},{digit},person {number % 60}")
        lines["few.csv"] += [f"{path},{'odd' if digit % 2 else 'even'}"] if number % 5 == 0 else []
        lines["several.csv"].append(f"{path},{said if number % 11 else ''}")
        lines["numbers.tsv"].append(f"{path}\t{digit + number % 3 / 10}")
        lines["splits.jsonl"].append(json.dumps({"path": path, "label": label, "split": split}))
    for name, text in lines.items():
        (folder / name).write_text("\n".join(text) + "\n")
