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
from command_line import featx as run_featx
from safetensors.torch import load_file

import featx
from featx.errors import FeatxError
from featx.heads.head import Head
from featx.promotion.distributed import AccelerateGroup, ProcessGroup

COMMAND = (
    "promote",
    "head.safetensors",
    "--finetune",
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--lr",
    "0.01",
    "--device",
    "cpu",
)
CASES = [("--mixup", "0"), ("--last", "1", "--ema", "0.9"), ("--train-bn", "--repeats", "2")]

_ONE_AFTER_ANOTHER = """
import json, os, runpy, sys
for number, words in enumerate(json.loads(sys.argv[1])):
    sys.argv = ["featx", *words]
    with open(f"{number}-{os.environ['RANK']}.json", "w") as sys.stdout:
        try:
            runpy.run_module("featx", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise
"""
"""Several commands in the same processes, which take longer to start than to train."""


def test_two_processes_end_where_one_does(split_photos: Path, in_tmp: Path) -> None:
    pytest.importorskip("accelerate")
    Head("ridge").fit(featx.extract(split_photos, "lenet5").load()).save("head.safetensors")
    Path("each.py").write_text(_ONE_AFTER_ANOTHER)
    each = [[*COMMAND, *more, "--json", "-o", f"two-{number}.safetensors"] for number, more in enumerate(CASES)]
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "each.py", json.dumps(each)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for number, more in enumerate(CASES):
        alone = json.loads(run_featx(*COMMAND, *more, "--json", "-o", f"one-{number}.safetensors").stdout)
        together = json.loads(Path(f"{number}-0.json").read_text())
        assert Path(f"{number}-1.json").read_text() == "", "one process prints"
        assert together["verdict"] == alone["verdict"], more
        for name in ("loss", "log_loss", "accuracy"):
            found, expected = ([entry[name] for entry in result["log"][1:]] for result in (together, alone))
            np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=f"{name} with {more}")
        if alone["repeats"]:
            assert [s["n"] for s in together["repeats"]["splits"]] == [s["n"] for s in alone["repeats"]["splits"]]
        first, second = load_file(f"one-{number}.safetensors"), load_file(f"two-{number}.safetensors")
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
