"""Stopping on purpose: a signal, or the time limit that a rule passes on."""

import signal
import time

from pipeline.training.launcher import STOP_SIGNALS


class StopFlag:
    """True once a stop signal came or the time is nearly over."""

    def __init__(self, minutes: int, started: float):
        self.signalled = False
        # Room for the save and for what follows; short limits keep a quarter.
        self.deadline = started + minutes * 60 - min(90.0, minutes * 15.0) if minutes else None
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.signalled = True

    def __call__(self) -> bool:
        late = self.deadline is not None and time.monotonic() > self.deadline
        return self.signalled or late
