"""A finished zoo to report on; tests that change it work on a copy."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.report.zoo import Zoo


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A finished zoo that nobody changes."""
    return Zoo(tmp_path_factory.mktemp("zoo")).build()


@pytest.fixture
def zoo(finished: Zoo, tmp_path: Path) -> Zoo:
    """A finished zoo of the test's own."""
    shutil.copytree(finished.folder, tmp_path / "zoo")
    return Zoo(tmp_path / "zoo")
