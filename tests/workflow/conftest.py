"""Tiny zoos for tests of the workflow."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.zoo import Zoo


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """Return the tiny zoo, nothing run yet."""
    return Zoo(tmp_path / "a zoo")


@pytest.fixture(scope="session")
def make_zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Zoo]:
    """Return a maker of tiny zoos for fixtures that outlive a test."""
    return lambda: Zoo(tmp_path_factory.mktemp("zoos") / "a zoo")


@pytest.fixture(scope="session")
def finished_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Return the tiny zoo after one run of the workflow; tests leave its results as they are.

    The workers of pytest-xdist share it: the first makes it, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "finished").exists():
            return Zoo.at(shared / "finished" / "a zoo")
        zoo = Zoo(shared / "unfinished" / "a zoo")
        zoo.run()
        (shared / "unfinished").rename(shared / "finished")
    return Zoo.at(shared / "finished" / "a zoo")
