"""Progress on stderr: a bar on a terminal, plain heartbeat lines in a log."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

HEARTBEAT_SECONDS = 10.0
_SHOWN = {"loss": "{:.3f}", "tokens_per_second": "{:,.0f} tokens/s"}


class Heartbeat:
    """Shows where a stage is, its figures and the time left."""

    def __init__(self, stage: str, total: int):
        self.stage, self.total = stage, total
        self._began = self._last = time.monotonic()
        self._first: int | None = None
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn(stage),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(stage, total=total, text="")

    def note(self, text: str) -> None:
        """Say something once."""
        print(f"{self.stage}: {text}", file=sys.stderr, flush=True)

    def step(self, done: int, figures: Mapping[str, Any]) -> None:
        """Tell that `done` of the total are done."""
        text = " ".join(
            f"{'' if '{:,' in form else name + ' '}{form.format(figures[name])}"
            for name, form in _SHOWN.items()
            if name in figures
        )
        if self._bar:
            self._bar.update(self._task, completed=done, text=text)
            return
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if now - self._last >= HEARTBEAT_SECONDS or done == self.total:
            self._last = now
            pace = (now - self._began) / max(1, done - self._first)
            left = f"{pace * (self.total - done):.0f} s left" if done > self._first else ""
            self.note(f"{done}/{self.total} {text} {left}".rstrip())

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
