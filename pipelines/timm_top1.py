"""Make ``featx/backbones/timm-top1.csv`` from the table of results in timm's repository.

timm (https://github.com/huggingface/pytorch-image-models, Apache License 2.0) keeps the ImageNet-1k accuracy of its weights in
``results/results-imagenet.csv``, which its wheels do not contain. Of each row this keeps the name and the top-1 accuracy. The
table is of commit 0173a139a2c66db3a41ebfe1d8ac4fb02483642e; weights that are newer have no accuracy.

    python pipelines/timm_top1.py pytorch-image-models/results/results-imagenet.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import featx.backbones

HEADER = (
    "# ImageNet-1k top-1 accuracy in % of the weights of timm, from its results/results-imagenet.csv (Apache License 2.0).\n"
    "# https://github.com/huggingface/pytorch-image-models; made by pipelines/timm_top1.py.\n"
    "model,top1\n"
)


def table(results: Path) -> str:
    """The two columns of a table of results, with where they come from."""
    with results.open(newline="") as file:
        rows = [f"{row['model'].lower()},{float(row['top1']):.3f}\n" for row in csv.DictReader(file)]
    return HEADER + "".join(rows)


if __name__ == "__main__":
    (Path(featx.backbones.__file__).parent / "timm-top1.csv").write_text(table(Path(sys.argv[1])))
