"""The page of an inspection in a browser: how long it loads, pans, scrolls, decides and exports.

    python benchmarks/inspect_page.py

needs ``pip install playwright`` and Chromium, and takes half a minute. The result is one line of JSON: for 20,000 and 100,000
made images, the size of the page, and milliseconds. ``map_draw`` is the time of one drawing of the map in the script, and
``map_frame`` that from one frame to the next while the map is panned, which the browser holds at 60 per second.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featx.features.feature_set import FeatureSet
from featx.inspection.duplicates import Duplicates
from featx.inspection.label_issues import LabelIssues
from featx.inspection.leaks import Leaks
from featx.inspection.neighbours import Neighbours
from featx.inspection.outliers import Outliers
from featx.inspection.page import write_inspection_page
from featx.inspection.pixels import PixelIssues
from featx.inspection.result import Inspection

SIZES = (20_000, 100_000)
"""Images of the pages that are measured."""

CLASSES = 20

_FRAMES = """async ([move, count]) => {
  const run = new Function(move), frames = [], draws = [];
  let last = performance.now();
  for (let i = 0; i < count; i++) {
    run();
    await new Promise((done) => requestAnimationFrame(done));
    const now = performance.now();
    frames.push(now - last);
    draws.push(map ? map.frameTime : 0);
    last = now;
  }
  const median = (values) => values.sort((a, b) => a - b)[count >> 1];
  return [median(frames), median(draws)];
}"""

_TIMED = (
    "(code) => { const run = new Function(code), start = performance.now(); run(); return performance.now() - start; }"
)


def made(count: int) -> tuple[Inspection, np.ndarray]:
    """An inspection of some images in clusters, a tenth of which have findings of each kind, and their places on the map."""
    rng = np.random.default_rng(0)
    rows, labels = np.arange(count), np.arange(count) % CLASSES
    names = np.array([f"class {label}" for label in range(CLASSES)], dtype=object)
    found = rows[::10]
    groups = tuple(found.reshape(-1, 2))
    group_of = np.full(count, -1)
    group_of[found] = np.repeat(np.arange(len(groups)), 2)
    suggested = labels.copy()
    suggested[found] = (labels[found] + 1) % CLASSES
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (90, 120, 150)).save(file, "JPEG")
    features = FeatureSet(
        features=rng.normal(size=(count, 2)).astype(np.float32),
        labels=labels,
        splits=np.where(rows % 5, "train", "test").astype(object),
        classes=tuple(names),
        paths=[f"class {label}/{row:06}.jpg" for row, label in enumerate(labels)],
        keys=np.zeros((count, 16), dtype=np.uint8),
    )
    near = np.full(len(groups), 0.01, dtype=np.float32)
    never = np.zeros(len(groups), dtype=bool)
    inspection = Inspection(
        features=features,
        neighbours=Neighbours(rng.integers(0, count, (count, 10)), rng.random((count, 10), dtype=np.float32)),
        duplicates=Duplicates(0.05, np.array(groups), near, never, groups, group_of, np.ones(count)),
        leaks=Leaks(np.arange(len(groups)), np.arange(len(groups)), "test", found),
        outliers=Outliers(rng.random(count), 0.9, np.isin(rows, found), np.ones(count), found),
        out_of_fold=None,
        labels=LabelIssues(
            rng.random(count),
            np.isin(rows, found),
            names[labels],
            names[suggested],
            rng.random(count),
            len(found),
            found,
        ),
        pixels=PixelIssues({}, {}, np.full((count, 2), 96), dict.fromkeys(range(count), file.getvalue()), 0, {}),
    )
    return inspection, 4 * rng.normal(size=(CLASSES, 2))[labels] + rng.normal(size=(count, 2))


def measure_page(browser: Any, count: int, folder: Path) -> dict[str, float]:
    """Write the page of some images, open it, and use it."""
    inspection, places = made(count)
    started = time.perf_counter()
    path = write_inspection_page(folder / f"{count}.html", inspection, coordinates=places)
    written = time.perf_counter()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    loaded = time.perf_counter()
    page.evaluate("showPanel('map')")
    page.wait_for_timeout(500)
    frame, draw = page.evaluate(_FRAMES, ["map.view.x += 40; map.draw();", 60])
    page.evaluate("showPanel('images')")
    scroll, _ = page.evaluate(_FRAMES, ["scrollBy(0, 400);", 60])
    result = {
        "megabytes": path.stat().st_size / 1e6,
        "write_ms": 1000 * (written - started),
        "load_ms": 1000 * (loaded - written),
        "map_draw_ms": draw,
        "map_frame_ms": frame,
        "scroll_frame_ms": scroll,
        "elements": page.evaluate("document.querySelectorAll('*').length"),
        "decide_all_ms": page.evaluate(_TIMED, "decide(ALL_ROWS.flatMap((row) => relabel(row, 'class 3')));"),
        "export_ms": page.evaluate(_TIMED, "exportTable();"),
    }
    page.close()
    return {name: round(value, 1) for name, value in result.items()}


def measure(sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Measure the page of each number of images."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        sys.exit("there is no Chromium; install the package chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        result: dict[str, Any] = {str(count): measure_page(browser, count, Path(folder)) for count in sizes}
        versions = {"chromium": browser.version, "playwright": version("playwright"), "numpy": np.__version__}
        browser.close()
    return {**result, "versions": versions}


def main() -> None:
    """Print the figures."""
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
