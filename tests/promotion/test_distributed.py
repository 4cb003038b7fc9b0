"""Several processes that train one network, under torchrun, on the CPU by gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import featx
from featx.errors import FeatxError
from featx.heads.head import Head
from featx.promotion.distributed import AccelerateGroup, ProcessGroup

RUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "featx")
OPTIONS = ("--finetune", "--epochs", "2", "--batch-size", "8", "--lr", "0.01", "--device", "cpu", "--json")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=env)


@pytest.mark.parametrize("more", [("--mixup", "0"), ("--last", "1", "--ema", "0.9"), ("--train-bn", "--repeats", "2")])
def test_two_processes_end_where_one_does(split_photos: Path, in_tmp: Path, more: tuple[str, ...]) -> None:
    pytest.importorskip("accelerate")
    Head("ridge").fit(featx.extract(split_photos, "lenet5").load()).save("head.safetensors")
    one = run(sys.executable, "-m", "featx", "promote", "head.safetensors", *OPTIONS, *more, "-o", "one.safetensors")
    two = run(*RUN, "promote", "head.safetensors", *OPTIONS, *more, "-o", "two.safetensors")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    alone, together = json.loads(one.stdout), json.loads(two.stdout)  # one object: one process prints
    assert together["verdict"] == alone["verdict"]
    for name in ("loss", "log_loss", "accuracy"):
        np.testing.assert_allclose(
            [entry[name] for entry in together["log"][1:]], [entry[name] for entry in alone["log"][1:]], rtol=1e-3
        )
    if alone["repeats"]:
        assert [s["n"] for s in together["repeats"]["splits"]] == [s["n"] for s in alone["repeats"]["splits"]]
    first, second = load_file("one.safetensors"), load_file("two.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=1e-4)
    assert not list(Path().glob("*.checkpoint"))


def test_without_accelerate_several_processes_are_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(FeatxError, match=r"not installed: pip install accelerate"):
        AccelerateGroup(torch.device("cpu"))


def test_the_shards_of_all_processes_are_the_whole() -> None:
    rows, gathered = np.arange(7), np.empty(7)
    for rank in range(3):
        one = ProcessGroup()
        one.rank, one.count = rank, 3
        gathered[rank::3] = one.shard(rows)
        assert one.is_main == (rank == 0)
    np.testing.assert_array_equal(gathered, rows)
    alone = ProcessGroup()
    assert alone.shard(rows) is not None
    np.testing.assert_array_equal(alone.gather(alone.shard(rows)), rows)
