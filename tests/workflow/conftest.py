"""Tiny zoos for tests of the workflow."""

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
def finished_zoo(make_zoo: Callable[[], Zoo]) -> Zoo:
    """Return the tiny zoo after one run of the workflow; tests leave its results as they are."""
    zoo = make_zoo()
    zoo.run()
    return zoo
