"""The budget of memory for images that are decoded at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from images.make import CASES, FOLDER
from pictures import file_of

from featx.data.decode import decode
from featx.data.memory import BUDGET, SMALL, MemoryBudget, machine_memory

MIB = 1 << 20


def test_needs_that_fit_are_granted_at_once_and_given_back() -> None:
    budget = MemoryBudget(100 * MIB)
    with budget.lease() as first, budget.lease() as second:
        first.take(40 * MIB)
        second.take(60 * MIB)
        assert budget.held == 100 * MIB
        first.take(35 * MIB)  # instead of the earlier need
        assert budget.held == 95 * MIB
    assert budget.held == 0


def test_a_need_that_does_not_fit_waits_until_there_is_room() -> None:
    budget, granted = MemoryBudget(100 * MIB), threading.Event()

    def late() -> None:
        with budget.lease() as lease:
            lease.take(50 * MIB)
            granted.set()

    with budget.lease() as lease:
        lease.take(60 * MIB)
        thread = threading.Thread(target=late)
        thread.start()
        assert not granted.wait(0.05)
    assert granted.wait(20)
    thread.join(20)
    assert budget.held == 0


def test_a_need_above_the_whole_budget_is_granted_alone() -> None:
    budget = MemoryBudget(100 * MIB)
    with budget.lease() as lease:
        lease.take(900 * MIB)
        assert budget.held == 900 * MIB
    assert budget.held == 0


def test_a_small_need_is_not_counted() -> None:
    budget = MemoryBudget(1)
    with budget.lease() as first, budget.lease() as second:
        first.take(SMALL - 1)
        second.take(SMALL - 1)
        assert budget.held == 0


def test_the_lease_of_an_image_that_fails_is_given_back() -> None:
    budget = MemoryBudget(100 * MIB)

    def fail() -> None:
        with budget.lease() as lease:
            lease.take(60 * MIB)
            raise ValueError("spoilt")

    with pytest.raises(ValueError, match="spoilt"):
        fail()
    assert budget.held == 0


def test_many_threads_never_hold_more_than_the_budget_together() -> None:
    budget, most = MemoryBudget(200 * MIB), [0]
    needs = np.random.default_rng(0).integers(SMALL, 200 * MIB, (8, 20)).tolist()

    def work(own: list[int]) -> None:
        for need in own:
            with budget.lease() as lease:
                lease.take(need)
                most[0] = max(most[0], budget.held)
                time.sleep(0)

    threads = [threading.Thread(target=work, args=(own,)) for own in needs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 0 < most[0] <= budget.limit
    assert budget.held == 0


def test_the_budget_of_this_machine_is_a_part_of_its_memory() -> None:
    assert BUDGET.limit == max(1 << 30, machine_memory() // 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_decoding_holds_nothing_afterwards_whatever_became_of_the_image() -> None:
    for name, case in CASES.items():
        if isinstance(case.expected, str):
            with pytest.raises(ValueError, match=r"."):
                decode((FOLDER / name).read_bytes())
    decode(file_of(np.zeros((4000, 3000, 3), np.uint8), compress_level=1))
    assert BUDGET.held == 0


PEAK = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from featx.data import memory
from featx.data.decode import read_pixels
from featx.data.transform import Transform

torch.set_num_threads(1)
limit = int(sys.argv[2])
memory.BUDGET.limit = limit
data = open(sys.argv[1], "rb").read()
read_pixels(open(sys.argv[3], "rb").read(), Transform())  # loads what there is to load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(6) as pool:
    for pixels in pool.map(lambda _: read_pixels(data, Transform()), range(6)):
        assert pixels.shape == (3, 224, 224)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_six_threads_on_a_small_file_of_a_large_image_stay_within_the_budget(kind: str, tmp_path: object) -> None:
    side = 1800
    if kind == "WEBP":  # a few kB
        data = file_of(np.full((side, side, 4), 200, np.uint8), kind, lossless=True, method=0)
    else:
        data = file_of(np.full((side, side), 0.25, np.float32), kind, compression="tiff_deflate")
    assert len(data) < 200_000
    path = f"{tmp_path}/large"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)
    one = side * side * 17  # what a WebP takes
    script = [sys.executable, "-c", PEAK, path, str(2 * one + MIB), str(FOLDER / "rgb.png")]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 3 * one, f"{int(done.stdout) / 1024:.0f} MiB"  # of six that would take 6 * one
