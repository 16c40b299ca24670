"""Who started this rank, as srun, torchrun and our own launcher tell it."""

import pytest

from pipeline.errors import UsageError
from pipeline.training.launcher import Place, check_ranks, find_place


@pytest.fixture
def bare(monkeypatch):
    for name in ("PIPELINE_RANK", "TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


def test_alone(bare):
    assert find_place() == Place(0, 1, "nobody")


def test_srun_step_of_several_tasks(bare):
    bare("SLURM_STEP_NUM_TASKS", "4")
    bare("SLURM_PROCID", "2")
    assert find_place() == Place(2, 4, "srun")


def test_a_job_step_of_one_task_starts_its_own_ranks(bare):
    bare("SLURM_STEP_NUM_TASKS", "1")
    bare("SLURM_PROCID", "0")
    assert find_place() == Place(0, 1, "nobody")


def test_torchrun(bare):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("WORLD_SIZE", "2")):
        bare(name, value)
    assert find_place() == Place(1, 2, "torchrun")


def test_our_launcher_goes_first(bare):
    bare("SLURM_STEP_NUM_TASKS", "4")
    bare("SLURM_PROCID", "2")
    bare("PIPELINE_RANK", "1")
    bare("PIPELINE_RANKS", "2")
    assert find_place() == Place(1, 2, "launcher")


def test_another_number_of_ranks_than_started_is_refused():
    with pytest.raises(UsageError, match="--set ranks=4: srun started 2"):
        check_ranks(Place(0, 2, "srun"), 4)
    check_ranks(Place(0, 2, "srun"), 2)
