"""Settings of every test: nothing from outside, one thread, no network."""

import os
import signal
from collections.abc import Iterator

import pytest


def pytest_configure() -> None:
    """Before torch is imported: as many threads as a rank has."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no mirror, crash point or Snakemake profile of whoever runs them."""
    for name in list(os.environ):
        if name.startswith(("PIPELINE_", "SNAKEMAKE_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """What a stage that ran inside a test does on a signal ends with the test."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
