"""Settings of every test: nothing from outside, one thread, no network."""

import os

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
