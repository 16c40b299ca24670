"""Processes of benchmarks: several side by side, each with its wall-clock and CPU seconds."""

import argparse
import contextlib
import os
import platform
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Job:
    """Commands run one after another until one fails; all they say goes into a file."""

    commands: Sequence[Sequence[object]]
    folder: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[bytes]:
        """Start in a session of its own, so that all of it can be stopped."""
        line = " && ".join(shlex.join(map(str, command)) for command in self.commands)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                ["sh", "-c", line], cwd=self.folder, env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


class Finished(NamedTuple):
    """How a job ended and what it cost, its children included."""

    code: int
    seconds: float
    cpu_seconds: float
    said: str

    def costs(self) -> dict[str, float]:
        """Return both costs as JSON values."""
        return {"seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu_seconds, 2)}


def run_jobs(jobs: Mapping[int, Job], slots: int) -> Iterator[tuple[int, Finished]]:
    """Yield (key, how it ended) of each job as it ends, at most `slots` running at a time.

    Jobs that still run when the iterator is closed are killed.
    """
    waiting = list(jobs)
    running: dict[int, tuple[int, subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                key = waiting.pop(0)
                began = time.monotonic()
                process = jobs[key].start()
                running[process.pid] = (key, process, began)
            # Waited for here, because only so the kernel tells what the process used.
            pid, status, usage = os.wait4(-1, 0)
            if pid not in running:
                continue
            key, process, began = running.pop(pid)
            process.returncode = os.waitstatus_to_exitcode(status)
            said = jobs[key].log.read_text(encoding="utf-8", errors="replace")
            cpu = usage.ru_utime + usage.ru_stime
            yield key, Finished(process.returncode, time.monotonic() - began, cpu, said)
    finally:
        for pid, (_, process, _) in running.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            process.wait()


def elapsed(seconds: Sequence[float], slots: int) -> float:
    """Return how long jobs of these lengths take, begun in this order, `slots` side by side."""
    ends = [0.0] * slots
    for length in seconds:
        ends[ends.index(min(ends))] += length
    return max(ends)


def command_line(name: str, args: argparse.Namespace) -> str:
    """Return a benchmark's command with names for paths, which differ from machine to machine."""
    parts = [f"python -m tests.benchmarks.{name}"]
    for key, value in vars(args).items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, Path):
            parts.append(f"{option} {key.upper()}")
        elif value is True:
            parts.append(option)
        elif isinstance(value, list):
            parts.append(f"{option} {','.join(map(str, value))}")
        elif value not in (None, False):
            parts.append(f"{option} {shlex.quote(str(value))}")
    return " ".join(parts)


def describe_machine() -> str:
    """Return cores and processor of this machine."""
    name = platform.machine()
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{len(os.sched_getaffinity(0))} cores, {name}"
