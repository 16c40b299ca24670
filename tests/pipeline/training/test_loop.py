"""One step: the tree of gradients, sums, and the stop before a step that is not finite."""

import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from pipeline.errors import ConfigError, CrashLoopError
from pipeline.layers import TargetOutput
from pipeline.spec import OptimizationSpec
from pipeline.training.distributed import Ranks
from pipeline.training.launcher import Place
from pipeline.training.loop import GradientTree, Learner, MicroBatch, find_device

SETTINGS = OptimizationSpec(total_steps=10, checkpoint_steps=5)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, tensors):
        error = (self.weight * tensors["x"]).sum()
        return [TargetOutput(error**2, {"half": (torch.tensor(1), torch.tensor(2))})]


def learner(objective=None):
    ranks = Ranks(Place(0, 1, "nobody"), torch.device("cpu"))
    return Learner(objective or Quadratic(), SETTINGS, ranks, ["square"])


def batch(index, *values):
    return MicroBatch(index, {"x": torch.tensor(values)}, [1])


@pytest.mark.parametrize("leaves", [1, 2, 4, 8])
def test_an_aligned_block_of_leaves_is_a_subtree(leaves):
    torch.manual_seed(0)
    gradients = [torch.randn(1000) for _ in range(8)]
    whole = GradientTree()
    for gradient in gradients:
        whole.add([gradient.clone()])
    blocks = []
    for start in range(0, 8, leaves):
        tree = GradientTree()
        for gradient in gradients[start : start + leaves]:
            tree.add([gradient.clone()])
        blocks.append(tree.total()[0])
    while len(blocks) > 1:
        blocks = [a + b for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
    assert torch.equal(whole.total()[0], blocks[0])


def test_sums_have_one_row_for_each_micro_batch_and_named_columns():
    model = learner()
    sums = model.update(0, [batch(0, 1.0, 0.0), batch(1, 0.0, 1.0)], [2], 0.0)
    assert model.columns == ["square.loss", "half.correct", "half.total"]
    assert sums.tolist() == [[1.0, 1.0, 2.0], [4.0, 1.0, 2.0]]


def test_splitting_a_batch_does_not_change_the_update():
    one, two = learner(), learner()
    one.update(0, [batch(0, 1.0, 1.0), batch(1, 2.0, 0.0)], [2], 0.1)
    two.update(0, [batch(1, 2.0, 0.0), batch(0, 1.0, 1.0)], [2], 0.1)
    assert torch.equal(one.objective.weight, two.objective.weight)


def test_nothing_changes_when_the_gradient_is_not_finite():
    model = learner()
    with pytest.raises(CrashLoopError, match="step 4: the gradient is not finite"):
        model.update(3, [batch(0, float("inf"), 1.0)], [1], 0.1)
    assert model.objective.weight.tolist() == [1.0, 2.0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="device cuda: no CUDA device here"):
        find_device("cuda")


def test_ddp_is_gone_before_the_ranks_part() -> None:
    """Its destructor must not be the one that ends the group: gloo's threads would wait for it."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        ranks = Ranks(Place(0, 1, "nobody"), torch.device("cpu"))
        ranks.size = 2
        learner = Learner(Quadratic(), SETTINGS, ranks, ["square"], reduction="ddp")
        parallel = weakref.ref(learner.parallel)
        assert parallel() is not None
        learner.close()
        assert parallel() is None
    finally:
        dist.destroy_process_group()
