"""Sums over real gloo ranks have the bits of one rank's tree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.training.loop import GradientTree

PROGRAM = """
import sys, torch
from pathlib import Path
from pipeline.errors import PipelineError
from pipeline.training import shared
from pipeline.training.distributed import Ranks
from pipeline.training.launcher import find_place
from pipeline.training.loop import GradientTree
torch.set_num_threads(1)
shared.WINDOW_ELEMENTS = 1000  # so that a tensor goes over two borders
ranks = Ranks(find_place(), torch.device("cpu"))
share = 8 // ranks.size
tree = GradientTree()
for leaf in range(ranks.rank * share, (ranks.rank + 1) * share):
    torch.manual_seed(leaf)
    tree.add([torch.randn(300, 7), torch.randn(11)])
total = tree.total()
ranks.add_gradients(total)
again = [part.clone() for part in total]
ranks.add_gradients(again)
slots = torch.zeros(ranks.size, dtype=torch.float64)
slots[ranks.rank] = 0.1 * (ranks.rank + 1)
result = {
    "total": total,
    "again": again,
    "integers": ranks.sum_integers([ranks.rank, 1]),
    "slots": ranks.fill_slots(slots).tolist(),
    "nodes": ranks.nodes,
}
ranks.require_equal({"a": "same", "b": "same"}, "weights")
try:
    ranks.require_equal({"a": "same", "b": str(ranks.rank)}, "weights")
except PipelineError as error:
    result["difference"] = str(error)
torch.save(result, Path(sys.argv[1]) / f"{ranks.rank}.pt")
ranks.close()
"""


def start(size: int, folder: Path, shared: bool) -> list[dict]:
    common = {"PIPELINE_RANKS": str(size), "PIPELINE_STORE": str(folder / "store")}
    with open(os.memfd_create("gradients"), "r+b") as memory:
        if shared:
            common["PIPELINE_SHARED"] = str(memory.fileno())
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(folder)],
                env={**os.environ, **common, "PIPELINE_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                pass_fds=[memory.fileno()],
            )
            for rank in range(size)
        ]
        assert [process.wait(timeout=120) for process in ranks] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_agree_with_one_another_and_with_one_rank(size, shared, tmp_path):
    tree = GradientTree()
    for leaf in range(8):
        torch.manual_seed(leaf)
        tree.add([torch.randn(300, 7), torch.randn(11)])
    expected = tree.total()
    for result in start(size, tmp_path, shared):
        assert all(torch.equal(a, b) for a, b in zip(result["total"], expected, strict=True))
        # All ranks hold one sum now, and a power of two times it is exact.
        assert all(torch.equal(a, b * size) for a, b in zip(result["again"], expected, strict=True))
        assert result["integers"] == [sum(range(size)), size]
        assert result["slots"] == [0.1 * (rank + 1) for rank in range(size)]
        assert result["nodes"] == [os.uname().nodename] * size
        assert result["difference"] == "weights: ranks hold different values, first in b"
