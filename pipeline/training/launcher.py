"""Starting the ranks of a training stage: ourselves, or finding that srun or torchrun did.

Imports no torch: the launcher only waits, forwards signals and passes on the first exit code.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ArtifactError, PipelineError, Resumable, UsageError
from pipeline.text.workers import die_with_parent

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Place:
    """Which of how many ranks this process is, and who started it."""

    rank: int
    size: int
    started_by: Literal["nobody", "launcher", "srun", "torchrun"]

    @property
    def node(self) -> str:
        """The node's name: Slurm's where there is one."""
        return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def find_place() -> Place:
    """Return this process's place among the ranks, from the environment its starter left."""
    env = os.environ
    if "PIPELINE_RANK" in env:
        return Place(int(env["PIPELINE_RANK"]), int(env["PIPELINE_RANKS"]), "launcher")
    if "TORCHELASTIC_RUN_ID" in env:
        return Place(int(env["RANK"]), int(env["WORLD_SIZE"]), "torchrun")
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in env:
        return Place(int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), "srun")
    return Place(0, 1, "nobody")


def check_ranks(place: Place, ranks: int) -> None:
    """Raise UsageError if srun or torchrun started another number of ranks than was asked for."""
    if place.started_by in {"srun", "torchrun"} and ranks not in {1, place.size}:
        raise UsageError(
            f"--set ranks={ranks}: {place.started_by} started {place.size}; give "
            "both the same number"
        )


def die_with_launcher() -> None:
    """Ask the kernel to kill this rank when its launcher dies, so that no orphan keeps the lock."""
    if parent := os.environ.get("PIPELINE_LAUNCHER"):
        die_with_parent(int(parent), Resumable.exit_code)


def launch(ranks: int) -> int:
    """Run this very command line once for each rank; return 0 or the first failure's exit code.

    Stop signals are forwarded. When one rank fails the others are killed. Raises Resumable when a
    rank was killed by a signal: what it had saved stands; ArtifactError when it lost a mapped file.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-ranks-") as folder,
        # Memory without a name, so that nothing is left however they end.
        open(os.memfd_create("gradients"), "r+b") as shared,
    ):
        common = {
            "PIPELINE_RANKS": str(ranks),
            "PIPELINE_LAUNCHER": str(os.getpid()),
            "PIPELINE_STORE": str(Path(folder) / "store"),
            "PIPELINE_SHARED": str(shared.fileno()),
            "PIPELINE_STARTED": str(time.monotonic()),
        }
        children = [
            subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, **common, "PIPELINE_RANK": str(rank)},
                pass_fds=[shared.fileno()],
            )
            for rank in range(ranks)
        ]
        for number in STOP_SIGNALS:
            signal.signal(number, lambda received, _: _forward(children, received))
        try:
            return _wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait()


def _forward(children: list[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            # A terminal's Ctrl-C reaches the ranks by itself; twice would mean "at once".
            child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    while any(child.returncode is None for child in children):
        codes = [child.poll() or 0 for child in children]
        # A signal first: what it did to one rank makes the others fail.
        for rank, code in enumerate(codes):
            if code < 0:
                raise _obituary(rank, -code)
        if failed := [code for code in codes if code]:
            # A rank that only missed its partner says Resumable; the partner knows why.
            return next((code for code in failed if code != Resumable.exit_code), failed[0])
        time.sleep(_POLL_SECONDS)
    return 0


def _obituary(rank: int, number: int) -> PipelineError:
    if number == signal.SIGBUS:
        return ArtifactError(
            f"rank {rank} was killed by SIGBUS: a mapped file, most likely a shard, was cut short "
            "while in use; `verify` names it"
        )
    return Resumable(
        f"rank {rank} was killed by signal {number}, by hand or for want of memory; the same "
        "command continues from the last resume point"
    )
