"""Draw what the simulations of guarantees found, for docs/guarantees.md.

python benchmarks/bench_conformal.py --only made > sets.json
python benchmarks/bench_target_precision.py --only made > precision.json
python benchmarks/draw_guarantees.py sets.json precision.json docs/assets/guarantees.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from featx.report.plots.style import BLUE, GREY, ORANGE, as_svg, new_figure, style

_WORDS = {
    "conformal_per_class": "per class", "calibrate": "isotonic", "class_weight": "balanced", "logit_adjustment": "adjusted",
    "grouped": "by groups", "ungrouped": "groups ignored", "numbers": "numbers",
}  # fmt: skip


def name_of(line: Mapping[str, Any]) -> str:
    """A setting in words."""
    words = [word for key, word in _WORDS.items() if line.get(key)]
    words += [f"{line['classes']} classes"] if "classes" in line else []
    wish = [f"at most {line['alpha']:g} missed"] if line.get("alpha", 0.1) != 0.1 else []
    wish += [f"{line['target']:g} wanted"] if "target" in line else []
    return ", ".join([f"{line['kind']}, {line['rows']} rows", *words, *wish])


def draw_coverage(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """The mean coverage of each setting, and the 5 % quantile of its runs."""
    for place, line in enumerate(reversed(lines)):
        colour = ORANGE if line.get("ungrouped") else BLUE
        wanted = 1 - line["alpha"]
        axes.plot([line["low"], line["coverage"]], [place, place], color=colour, linewidth=1.5)
        axes.plot(line["coverage"], place, "o", color=colour, markersize=5)
        axes.plot([wanted, wanted], [place - 0.45, place + 0.45], color=GREY, linewidth=1.5)
    axes.set_yticks(range(len(lines)), [name_of(line) for line in reversed(lines)], fontsize=8)
    axes.set_xlabel("share of sets with the truth; grey: wanted")
    axes.set_title("--conformal: mean of the runs, and 5 % quantile", loc="left")


def draw_missed(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """The share of runs of each setting whose precision is below the wish."""
    axes.barh(range(len(lines)), [line["missed"] for line in reversed(lines)], color=BLUE, height=0.6)
    axes.axvline(0.05, color=GREY, linewidth=1.5)
    axes.set_yticks(range(len(lines)), [name_of(line) for line in reversed(lines)], fontsize=8)
    axes.set_xlim(0, max(0.1, *(line["missed"] * 1.1 for line in lines)))
    axes.set_xlabel("share of runs below the wish; grey: allowed")
    axes.set_title("--target-precision", loc="left")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, help="what bench_conformal.py printed")
    parser.add_argument("precision", type=Path, help="what bench_target_precision.py printed")
    parser.add_argument("picture", type=Path, help="SVG file to write")
    args = parser.parse_args()
    sets, precision = (json.loads(file.read_text()) for file in (args.sets, args.precision))
    with style():
        figure = new_figure(7.2, 0.25 * (len(sets["made"]) + len(precision["settings"])) + 1.6)
        first, second = figure.subplots(2, height_ratios=[len(sets["made"]), len(precision["settings"])])
        draw_coverage(first, sets["made"])
        draw_missed(second, precision["settings"])
        args.picture.write_text(as_svg(figure) + "\n")


if __name__ == "__main__":
    main()
