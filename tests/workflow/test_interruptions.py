"""Killed at any level, the workflow ends with the weights of an undisturbed run."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.artifacts import read_tensor_stamp
from tests.workflow.zoo import Zoo

MODEL = "results/4_average/tiny_lstm.safetensors"
SEGMENT = "results/3_pretrain/tiny_lstm/step_00000003.json"
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 120


def weights(zoo: Zoo) -> str:
    return read_tensor_stamp(zoo.folder / MODEL)["weights"]


def test_a_killed_trainer_is_retried_from_its_resume_point(zoo: Zoo, finished_zoo: Zoo) -> None:
    """Every attempt dies in its second step; the retries end the run all the same."""
    output = zoo.snakemake(MODEL, "--retries", "3", PIPELINE_CRASH_AT="step-0:2")
    assert output.count("Trying to restart job") >= 2, output
    assert weights(zoo) == weights(finished_zoo)


def test_a_trainer_that_never_gets_on_is_given_up(zoo: Zoo) -> None:
    """It dies before its first step: no output, no damage, and the reason is told."""
    zoo.run("results/2_instances/lines/manifest.json")
    output = zoo.snakemake(MODEL, "--retries", "4", check=False, PIPELINE_CRASH_AT="step-0:1")
    assert "Error in rule pretrain_passing" in output
    log = zoo.folder / "results/logs/pretrain/tiny_lstm/step_00000003.log"
    assert "3 attempts from step 0 died before the next resume point" in log.read_text()
    assert not list((zoo.folder / "results/3_pretrain").rglob("step_*"))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_killed_controller(zoo: Zoo, finished_zoo: Zoo, number: signal.Signals) -> None:
    """After `--unlock`, if it left a lock, the same command ends the run."""
    zoo.run("results/2_instances/lines/manifest.json")
    controller = zoo.start(MODEL)
    await_training(zoo, controller)
    controller.send_signal(number)
    controller.communicate(timeout=PATIENCE_SECONDS)
    if number == signal.SIGKILL:
        refused = zoo.snakemake(MODEL, check=False)
        assert "LockException" in refused or "IncompleteFilesException" in refused, refused
        zoo.snakemake("--unlock")
    # The trainer that outlived its controller may still write: then the new one is refused.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "(100%) done" not in (output := zoo.snakemake(MODEL, "--rerun-incomplete", check=False)):
        if "Nothing to be done" in output:
            break
        assert "another process writes here" in zoo.logs(), output + zoo.logs()
        assert time.monotonic() < deadline, output
    assert weights(zoo) == weights(finished_zoo)


def await_training(zoo: Zoo, controller: "subprocess.Popen[str]") -> None:
    """Return once the trainer holds its lock."""
    lock = Path(zoo.folder / "state/pretrain/tiny_lstm/.writer.lock")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not lock.exists():
        assert controller.poll() is None, controller.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def test_a_failed_stage_leaves_nothing_behind(zoo: Zoo) -> None:
    """A source that is not what its digest says: one line, no output, and the next run repeats."""
    zoo.change("datasets/reviews", "split.sources", [
        {"path": "pos.txt", "label": 1, "sha256": "0" * 64}
    ])  # fmt: skip
    output = zoo.snakemake("data/datasets/reviews/train.tsv", check=False)
    assert "Error in rule fetch_dataset" in output
    errors = [line for line in zoo.logs().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "expected 0000" in errors[0], errors
    assert not list((zoo.folder / "data").rglob("*.tsv"))
    assert zoo.planned("data/datasets/reviews/train.tsv") == {"fetch_dataset": 1}
