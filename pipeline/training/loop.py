"""One optimiser step over the micro-batches of a global batch, on any number of ranks.

Used by pre-training and fine-tuning alike. A loss is a sum over its units divided by the unit
count of the whole global batch, so neither accumulation, ranks nor padding change it.
"""

import contextlib
import gc
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, CrashLoopError
from pipeline.layers import TargetOutput
from pipeline.text.order import seed_of
from pipeline.training.distributed import Ranks
from pipeline.training.optimizer import (
    OptimizerSettings,
    build_optimizer,
    clip_gradients,
    set_rate,
)


class StepSettings(OptimizerSettings, Protocol):
    """What a step needs to know of OptimizationSpec or FinetuneSpec."""

    @property
    def clip_norm(self) -> float: ...
    @property
    def precision(self) -> str: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class MicroBatch:
    """A part of a global batch.

    index: its place in the global batch, which seeds dropout. tensors: what the objective reads.
    counts: units of each output of the objective (scored tokens, sentences).
    """

    index: int
    tensors: dict[str, Tensor]
    counts: list[int]


def prepare_torch(device: torch.device) -> None:
    """Make this process repeat itself bit for bit: one thread, deterministic kernels."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
    # Large blocks in huge pages: page faults of buffers of tens of MB took a tenth of a step.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a run option: cpu, cuda, cuda:N or auto. Raises ConfigError."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name}: no CUDA device here; use device=cpu or device=auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if ":" in name:
        return torch.device(name)
    return torch.device("cuda", local_rank % torch.cuda.device_count())


class GradientTree:
    """Adds gradients of micro-batches as the leaves of an aligned binary tree.

    Leaf i and i+1 (i even) are added first, then pairs of pairs: the same additions whoever holds
    which aligned block of leaves. Holds at most log2(leaves) + 1 gradients.
    """

    def __init__(self) -> None:
        self._stack: list[tuple[int, list[Tensor]]] = []

    def add(self, gradients: list[Tensor]) -> None:
        """Add the next leaf; its tensors are taken over."""
        level = 0
        while self._stack and self._stack[-1][0] == level:
            lower = self._stack.pop()[1]
            torch._foreach_add_(lower, gradients)
            gradients, level = lower, level + 1
        self._stack.append((level, gradients))

    def total(self) -> list[Tensor]:
        """Return the sum; the number of leaves must have been a power of two."""
        assert len(self._stack) == 1, "leaves are not a power of two"
        return self._stack.pop()[1]


class Learner:
    """An objective (tensors -> list of TargetOutput) with its optimiser."""

    def __init__(
        self,
        objective: nn.Module,
        settings: StepSettings,
        ranks: Ranks,
        names: list[str],
        optimizer: torch.optim.AdamW | None = None,
        reduction: str = "tree",
    ):
        """names: of the objective's outputs, in order; they name the columns of the sums."""
        self.objective, self.settings, self.ranks = objective, settings, ranks
        self.names = names
        self.columns: list[str] = []
        named = [(n, p) for n, p in objective.named_parameters() if p.requires_grad]
        self.optimizer = optimizer or build_optimizer(named, settings)
        self.parameters = [parameter for _, parameter in named]
        self.device = ranks.device
        self.parallel = self._wrap(reduction)

    def _wrap(self, reduction: str) -> nn.parallel.DistributedDataParallel | None:
        if reduction != "ddp" or self.ranks.size == 1:
            return None
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(self.objective, device_ids=ids)

    def close(self) -> None:
        """Let go of the group of ranks, which must still stand.

        DDP's destructor holds Python's lock. Were its reference to the group the last one, it would
        wait for gloo's threads, and they for that lock, for ever (seen with torch 2.13).
        """
        self.parallel = None
        gc.collect()

    def update(
        self, step: int, batches: list[MicroBatch], counts: list[int], rate: float
    ) -> Tensor:
        """Make the update that follows `step` updates; return this rank's sums.

        counts: units of the whole global batch. Returns (len(batches), len(self.columns)) float64,
        CPU. Raises CrashLoopError if the gradient is not finite, before anything is changed.
        """
        self.objective.train()
        tree = GradientTree()
        sums = []
        for number, batch in enumerate(batches):
            torch.manual_seed(seed_of(self.settings.seed, step, batch.index))
            last = number == len(batches) - 1
            sums.append(self._backward(batch, counts, last))
            if self.parallel is None:
                tree.add(self._take_gradients())
        if self.parallel is None:
            self._give_gradients(tree.total())
        norm = clip_gradients(self.parameters, self.settings.clip_norm)
        if not math.isfinite(norm):
            raise CrashLoopError(
                f"step {step + 1}: the gradient is not finite; nothing of this step was kept, a "
                "lower learning_rate or clip_norm may help"
            )
        set_rate(self.optimizer, rate, step, self.settings)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack(sums)

    def _backward(self, batch: MicroBatch, counts: list[int], last: bool) -> Tensor:
        module = self.parallel or self.objective
        waiting = self.parallel.no_sync() if self.parallel and not last else _nothing()
        # DDP takes the mean over ranks; a loss is a sum over all of them.
        scale = float(self.ranks.size) if self.parallel else 1.0
        with waiting:
            tensors = {k: t.to(self.device, non_blocking=True) for k, t in batch.tensors.items()}
            with autocast(self.device, self.settings.precision):
                outputs = module(tensors)
            loss = sum(
                output.loss_sum * (scale / max(1, count))
                for output, count in zip(outputs, counts, strict=True)
            )
            loss.backward()
        self.columns = self.columns or column_names(outputs, self.names)
        return output_sums(outputs)

    def _take_gradients(self) -> list[Tensor]:
        gradients = []
        for parameter in self.parameters:
            # A parameter that this micro-batch did not touch counts as zero on every rank alike.
            grad = parameter.grad
            gradients.append(torch.zeros_like(parameter) if grad is None else grad)
            parameter.grad = None
        return gradients

    def _give_gradients(self, gradients: list[Tensor]) -> None:
        self.ranks.add_gradients(gradients)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context of one forward pass in fp32 or bf16."""
    if precision == "fp32":
        return _nothing()
    return torch.autocast(device.type, torch.bfloat16)


def output_sums(outputs: list[TargetOutput]) -> Tensor:
    """Return (columns,) float64 on the CPU: per output its loss sum, then correct, total pairs."""
    values: list[float] = []
    for output in outputs:
        values.append(float(output.loss_sum.detach()))
        for correct, total in output.metrics.values():
            values += [float(correct), float(total)]
    return torch.tensor(values, dtype=torch.float64)


def column_names(outputs: list[TargetOutput], names: list[str]) -> list[str]:
    """Return the names of `output_sums`' columns: `mlm.loss`, `mlm.correct`, `mlm.total`, ..."""
    columns = []
    for name, output in zip(names, outputs, strict=True):
        columns.append(f"{name}.loss")
        for metric in output.metrics:
            columns += [f"{metric}.correct", f"{metric}.total"]
    return columns
