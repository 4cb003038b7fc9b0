"""All figures about ``featx inspect`` in one run: each part is a benchmark of its own beside this file.

    python benchmarks/bench_inspect.py                              # ../shared, all parts: about twenty minutes
    python benchmarks/bench_inspect.py --parts labels loop          # some of them

The features of both data sets through both backbones are extracted first, or found in the cache folder. The parts:

``near``: near-duplicates, planted copies. ``labels``: labels flipped, 5 % of trashnet and 10 % of hymenoptera. ``loop``: the
accuracy that accepted suggestions recover on trashnet. ``pixels``: planted odd images, against cleanvision. ``attribution``:
influences against heads that are fitted again, on hymenoptera. ``suggest``: label-efficiency curves. ``speed``: 10,000 x 768
against Datalab. ``large``: 100,000 x 768, with its peak of memory.

Prints one JSON line: {part: what the part printed, as a list with an entry for each of its runs}.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BACKBONES = {"mobilenet_v1_075": "mobilenet_v1_075", "timm/tf_efficientnet_lite0": "efficientnet_lite0"}
DATASETS = ("trashnet", "hymenoptera")


def extracted(shared: Path, cache: Path) -> dict[str, list[str]]:
    """Extract the features of both data sets through both backbones: {data set: feature files}."""
    files: dict[str, list[str]] = {}
    for dataset in DATASETS:
        for backbone, weights in BACKBONES.items():
            facts = run(
                ["-m", "featx", "extract", str(shared / "datasets" / dataset), "--backbone", backbone,
                 "--weights", str(shared / "weights" / f"{weights}.safetensors"), "--cache", str(cache), "--json"],
            )  # fmt: skip
            files.setdefault(dataset, []).append(facts["file"])
    return files


def run(arguments: list[str]) -> Any:
    """Run Python with these arguments, and read the JSON on the last line that it prints."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def parts(shared: Path, files: dict[str, list[str]]) -> dict[str, list[list[str]]]:
    """The command lines of each part."""
    images = [str(shared / "datasets" / name) for name in DATASETS]
    return {
        "near": [["inspect_near.py"]],
        "labels": [
            ["inspect_labels.py", *files["trashnet"], "--share", "0.05"],
            ["inspect_labels.py", *files["hymenoptera"], "--share", "0.10"],
        ],
        "loop": [["inspect_loop.py", *files["trashnet"]]],
        "pixels": [["inspect_pixels.py", *images]],
        "attribution": [["inspect_attribution.py", *files["hymenoptera"]]],
        "suggest": [["inspect_suggest.py", *files["trashnet"], *files["hymenoptera"]]],
        "speed": [["inspect_speed.py"]],
        "page": [["inspect_page.py"]],
        "large": [["inspect_speed.py", "--images", "100000", "--alone", "--repeats", "1"]],
    }


def main() -> None:
    """Run the parts that are asked for, and print what they print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with datasets/ and weights/")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder of feature files")
    parser.add_argument("--parts", nargs="+", help="by default all")
    options = parser.parse_args()
    lines = parts(options.shared, extracted(options.shared, options.cache))
    found = {
        part: [run([str(FOLDER / script), *rest]) for script, *rest in lines[part]] for part in options.parts or lines
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
