"""Everything that wants a GPU, in one command of less than eight minutes, for a machine that is lent for a few minutes.

    python benchmarks/gpu_check.py --write gpu.json           # on that machine, from the checkout
    python benchmarks/gpu_check.py --read gpu.json --write docs/performance.md
    python benchmarks/gpu_check.py --part resnet50 --part heads
    python benchmarks/gpu_check.py --tiny --device cpu        # a trial in some seconds, which measures nothing

Prints one JSON line with the card, the versions and what each part found; progress goes to stderr. ``--write`` stores the
line as well; a file ``.md`` gets the tables of it between its marks ``<!-- gpu_check -->`` and ``<!-- end of gpu_check -->``.
It needs torch, torchvision, h5py, scikit-learn and what these need, no network and no weights; what else is missing there, such
as pytest, is said under ``left_out``.

Every part is a process of its own with a time limit. What it found until then counts; what went wrong is its ``error``. Images
are JPEGs of 500 x 375 pixels, made before the first part. The parts:

- tests: the tests marked ``cuda``.
- decoding: images/s from a file to a crop of 224 pixels, by one thread, by a thread per core, and by nvJPEG.
- resnet50, vit_b_16, convnext_base: "device" is images/s of the network alone, from uint8 in memory to features in memory;
  "extraction" is ``featx.extract`` from files to a feature file; "steady" is without the first quarter of the images, so
  without opening the engine. "limited_by" is the slower of decoding and the device, each measured alone, "share_of_limit" how
  much of its rate the extraction reached, "busiest" what featx showed beside its progress.
- devices: the same by ``featx extract --devices``, with all GPUs; or with the only one named four times, for four processes.
- finetuning: two epochs of a whole network. heads: ``Head(device=...)`` against the processor.

Networks have random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_parts
from gpu_parts import NETWORKS, PARTS, Setting

ROOT = Path(__file__).resolve().parents[1]

MINUTES = 7.7
"""The most that all parts take together."""

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "h5py",
    "scikit-learn",
    "pillow",
    "simplejpeg",
    "onnxruntime",
    "pytest",
)

BEGIN, END = "<!-- gpu_check -->\n", "<!-- end of gpu_check -->"

NONE = "-"
"""A figure that is not there, in the tables."""

_LEAST = 5.0
"""Seconds that must be left for a part to begin."""


def measure(
    setting: Setting,
    parts: Sequence[str],
    minutes: float = MINUTES,
    keep: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Run parts one after the other.

    Args:
        setting: what they measure on, with a folder for their files.
        parts: names in ``PARTS``.
        minutes: of all together.
        keep: called with what is known after each part, in case that the machine is taken away.

    Returns:
        What each part found, by name, with its seconds; and what the machine is.
    """
    deadline = time.monotonic() + 60 * minutes
    found: dict[str, Any] = {"featx": git_revision(), "tiny": setting.tiny, "versions": versions()}
    for name in ("machine", *parts):
        budget = PARTS[name].seconds
        left = deadline - time.monotonic()
        if left < _LEAST:
            found[name] = {"left_out": f"{minutes:g} minutes were over"}
            continue
        print(f"{name}: at most {min(left, budget):.0f} s", file=sys.stderr, flush=True)
        found[name] = run_part(name, setting, min(left, budget))
        print(f"{name}: {json.dumps(found[name])[:300]}", file=sys.stderr, flush=True)
        found["seconds"] = round(60 * minutes - (deadline - time.monotonic()), 1)
        keep(found)
    return found


def run_part(name: str, setting: Setting, seconds: float) -> dict[str, Any]:
    """Run one part in a process of its own, and end it and its children when its time is over."""
    results = Path(setting.folder, f"{name}.json")
    command = [sys.executable, __file__, "--child", name, setting.as_json()]
    own = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "FEATX_HOME": f"{setting.folder}/home",
        "TORCHINDUCTOR_CACHE_DIR": f"{setting.folder}/inductor",
        "PYTHONUNBUFFERED": "1",
    }
    started = time.monotonic()
    error = ""
    with open(f"{setting.folder}/{name}.log", "w+b") as log:  # noqa: PTH123
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **own}, start_new_session=True
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            error = f"it took longer than {seconds:.0f} s"
        except BaseException:
            end(child)
            raise
        else:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            if code:
                error = f"exit status {code}: {said[-1] if said else 'it said nothing'}"[:500]
        finally:
            end(child)
    found: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        found = json.loads(results.read_text())
    return {**found, **({"error": error} if error else {}), "seconds": round(time.monotonic() - started, 1)}


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def versions() -> dict[str, str]:
    """Of Python and of the packages that are there."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_revision() -> str:
    """The commit of the checkout; "" where git does not know it."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


# The tables for docs/performance.md


def tables(found: Mapping[str, Any]) -> str:
    """What was found, as Markdown."""
    machine = found.get("machine", {})
    decoding = found.get("decoding", {})
    card = machine.get("card") or "no GPU"
    own = found["versions"]
    columns = (
        "images/s", "network alone, float32", "bfloat16", "compiled, bfloat16", "GB of the card",
        "extraction, float32", "compiled, bfloat16", "the same, nvJPEG", "share of the slower stage, alone",
    )  # fmt: skip
    lines = [
        f"Measured on {card} ({machine.get('card_gb', 0)} GB) with {machine.get('cores')} cores of {machine.get('processor')}, "
        f"torch {own.get('torch')}, driver {machine.get('driver') or 'unknown'}, in {found['seconds']:.0f} s. Decoding, from "
        f"file to crop: {_per_second(decoding.get('one_thread'))} by one thread, "
        f"{_per_second(decoding.get('all_threads'))} by a thread per core, {_per_second(decoding.get('nvjpeg'))} by nvJPEG.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for name in NETWORKS:
        part = found.get(name, {})
        device, extraction = part.get("device", {}), part.get("extraction", {})
        memory = max((each.get("card_gb", 0) for each in device.values() if isinstance(each, dict)), default=0)
        alone = [_rate(device.get(key)) for key in ("eager float32", "eager bfloat16", "compile bfloat16")]
        whole = [extraction.get(key) for key in ("eager float32", "compile bfloat16", "compile bfloat16 nvjpeg")]
        limits = ", ".join(_limit(each) for each in whole)
        cells = [*alone, f"{memory:g}" if memory else NONE, *(_rate(each, "steady") for each in whole), limits]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", _sentences(found), ""]
    return "\n".join(lines)


def _sentences(found: Mapping[str, Any]) -> str:
    tests, devices, tuning, heads = (found.get(name, {}) for name in ("tests", "devices", "finetuning", "heads"))
    said = []
    if "passed" in tests:
        counts = ", ".join(f"{tests[name]} {name}" for name in ("passed", "failed", "skipped"))
        said.append(f"Tests that need a GPU: {counts}.")
    if "speedup" in devices:
        said.append(
            f"`--devices {devices['devices']}` took {devices['seconds_devices']:g} s for {devices['images']:,} images, one "
            f"process {devices['seconds_plain']:g} s; the same bytes: {'yes' if devices['same_bytes'] else 'no'}."
        )
    if "images_per_second" in tuning:
        said.append(
            f"Fine-tuning all of {tuning['backbone']}: {tuning['images_per_second']:,.0f} images/s of an epoch, "
            f"{tuning.get('card_gb', 0):g} GB of the card."
        )
    for kind, each in heads.get("kinds", {}).items():
        if isinstance(each, dict) and "speedup" in each:
            said.append(
                f"{kind} on {each['rows']:,} x {heads['dim']} features in {heads['classes']} classes: "
                f"{each['device_seconds']:g} s on the card, {each['cpu_seconds']:g} s on the processor; the same class for "
                f"{100 * each['same_class']:.4g} % of 2,000 rows."
            )
    wrong = [
        f"{name} ({part['error']})" for name, part in found.items() if isinstance(part, dict) and part.get("error")
    ]
    if wrong:
        said.append(f"Not finished: {'; '.join(wrong)}.")
    return " ".join(said)


def _rate(entry: Any, key: str = "per_second") -> str:
    return f"{entry[key]:,.0f}" if isinstance(entry, dict) and entry.get(key) else NONE


def _limit(entry: Any) -> str:
    """The slower of decoding and the network, each measured alone, and the share of its rate that was reached."""
    if not isinstance(entry, dict) or "limited_by" not in entry:
        return NONE
    return f"{'the network' if entry['limited_by'] == 'device' else 'decoding'}: {100 * entry['share_of_limit']:.0f} %"


def _per_second(entry: Any) -> str:
    rate = _rate(entry)
    return "not measured" if rate == NONE else f"{rate} images/s"


def write(found: Mapping[str, Any], path: Path) -> None:
    """Store the figures as JSON, or as tables between the marks of a file ``.md``.

    Raises:
        ValueError: the file has no marks.
    """
    if path.suffix != ".md":
        path.write_text(json.dumps(found) + "\n")
        return
    text = path.read_text()
    filled, count = re.subn(
        re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: f"{BEGIN}\n{tables(found)}\n{END}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{path} has {count} places for the figures; expected one, between {BEGIN.strip()} and {END}")
    path.write_text(filled)


def store(found: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Store the figures in several files."""
    for path in paths:
        write(found, path)


def main() -> None:
    """Run, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[name for name in PARTS if name != "machine"])
    parser.add_argument("--device", default="auto", help="of torch; by default the GPU if there is one")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the most that all parts take together")
    parser.add_argument("--tiny", action="store_true", help="a trial with few images and small networks")
    parser.add_argument(
        "--write", type=Path, action="append", default=[], metavar="FILE", help="also write .json or .md"
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="the figures of an earlier run instead of a new one")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        gpu_parts.child(*options.child)
        return
    if options.read:
        found = json.loads(options.read.read_text())
    else:
        with tempfile.TemporaryDirectory(prefix="gpu_check-") as folder:
            setting = Setting(folder=folder, device=options.device, tiny=options.tiny)
            parts = options.part or [name for name in PARTS if name != "machine"]
            found = measure(setting, parts, options.minutes, lambda known: store(known, options.write))
    print(json.dumps(found))
    store(found, options.write)


if __name__ == "__main__":
    main()
