"""Rows of the bad-input matrix about our own checkpoints and about ranks, by the stage pretrain.

C13, E18 to E24, G4, G5, G8. Each refusal is one line; nothing is published, nothing is changed.
"""

import copy
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact, write_json
from pipeline.training.checkpoint import load_tensors, save_tensors
from tests.faults.kit import ROOT, SPEC, command
from tests.pipeline.stages.data_command import Outcome, contents
from tests.pipeline.stages.training_command import (
    LINES,
    TrainingInputs,
    changed,
    make_inputs,
    replace,
    train,
)

STEP = "step_00000004"
SECOND = ("--from", 4, "--to", 8)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainingInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def first(inputs: TrainingInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint at step 4."""
    out = tmp_path_factory.mktemp("first") / "run"
    assert train(inputs, out, "--from", 0, "--to", 4).code == 0
    return out


@pytest.fixture
def out(first: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(first, tmp_path / "run"))


def assert_refused(done: Outcome, code: int, pattern: str, out: Path) -> None:
    """Assert one line that begins with a place in `out`, and that no later checkpoint stands."""
    assert (done.code, len(done.lines)) == (code, 1), done.lines
    shown = done.lines[0].replace(f"{out}/", "")
    assert re.fullmatch(f"error: {pattern}", shown), shown
    assert not list(out.glob("step_00000008*"))


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    replace(path, b"")


def halved(path: Path) -> None:
    replace(path, path.read_bytes()[: path.stat().st_size // 2])


def longer(path: Path) -> None:
    replace(path, path.read_bytes() + b"x")


TENSORS = ("safetensors", "optimizer.safetensors")
E20 = [
    *((gone, ending, 66, f"{STEP}.{ending}: no such file") for ending in (*TENSORS, "json")),
    *(
        (empty, ending, 76, f"{STEP}.{ending}: not a safetensors file, or a truncated one")
        for ending in TENSORS
    ),
    *(
        (damage, ending, 76, rf"{STEP}.{ending}: \d+ bytes, its header promises \d+")
        for ending in TENSORS
        for damage in (halved, longer)
    ),
    *((damage, "json", 76, rf"{STEP}.json:\d+:\d+: not JSON: .*") for damage in (empty, halved)),
]


@pytest.mark.parametrize(("damage", "ending", "code", "pattern"), E20)
def test_e20_a_file_that_is_not_whole(
    inputs: TrainingInputs,
    out: Path,
    damage: Callable[[Path], None],
    ending: str,
    code: int,
    pattern: str,
) -> None:
    damage(out / f"{STEP}.{ending}")
    before = contents(out)
    assert_refused(train(inputs, out, *SECOND), code, pattern, out)
    assert contents(out) == before


def test_e20_files_that_do_not_belong_do_no_harm(inputs: TrainingInputs, out: Path) -> None:
    (out / "step_00000099.safetensors").write_bytes(b"junk")
    assert train(inputs, out, *SECOND).code == 0


def test_e20_files_of_two_runs(inputs: TrainingInputs, out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert train(inputs, other, "--from", 0, "--to", 4, spec=changed(seed=8)).code == 0
    for ending in TENSORS:
        replace(out / f"{STEP}.{ending}", (other / f"{STEP}.{ending}").read_bytes())
    pattern = rf"{STEP}.safetensors: SHA-256 .*, {STEP}.json says .*; they are of different runs"
    assert_refused(train(inputs, out, *SECOND), 76, pattern, out)


def test_e21_a_newer_version(inputs: TrainingInputs, out: Path) -> None:
    record = read_json_artifact(out / f"{STEP}.json")
    write_json(out / f"{STEP}.json", {**record, "stamp": {**record["stamp"], "format": 2}})
    pattern = f"{STEP}.json: format 2, made by a newer version; this one reads up to 1"
    assert_refused(train(inputs, out, *SECOND), 78, pattern, out)


@pytest.mark.parametrize("change", ["renamed", "reshaped"])
def test_e22_the_state_of_other_parameters(inputs: TrainingInputs, out: Path, change: str) -> None:
    path = out / f"{STEP}.optimizer.safetensors"
    moments, metadata = load_tensors(path)
    tensor = moments.pop("exp_avg_sq.embedding.word.weight")
    name = "exp_avg_sq.embedding.word.weight" + ("s" if change == "renamed" else "")
    digest = save_tensors(path, {**moments, name: tensor[:-1]}, metadata)
    record = read_json_artifact(out / f"{STEP}.json")
    write_json(out / f"{STEP}.json", {**record, "optimizer": digest})
    shown = "none" if change == "renamed" else r"one of shape \[21, 16\]"
    pattern = (
        "optimizer state at step 4: exp_avg_sq.embedding.word.weight must have shape "
        rf"\[22, 16\], there is {shown}"
    )
    assert_refused(train(inputs, out, *SECOND), 65, pattern, out)


def test_e23_the_state_of_another_run(inputs: TrainingInputs, tmp_path: Path) -> None:
    points = []
    for name, spec in (("one", changed(total_steps=4)), ("two", changed(total_steps=4, seed=8))):
        assert train(inputs, tmp_path / name, spec=spec).code == 0
        points += (tmp_path / f"{name}.state").glob("*/*/step_00000004.safetensors")
    shutil.rmtree(tmp_path / "two")
    replace(points[1], points[0].read_bytes())
    done = train(inputs, tmp_path / "two", spec=changed(total_steps=4, seed=8))
    line = f"error: {points[1]}: made for other settings: settings.optimization.seed: 7 -> 8"
    assert (done.code, done.lines) == (78, [line])
    assert not list((tmp_path / "two").glob("*"))


READ_ONLY = Path("/sys/pretrain-zoo")  # where nobody makes a folder, not even root


@pytest.mark.parametrize("option", ["out", "state", "log"])
def test_e24_a_disk_that_is_read_only(inputs: TrainingInputs, tmp_path: Path, option: str) -> None:
    places = {name: tmp_path / name for name in ("out", "state", "log")}
    places[option] = READ_ONLY
    more = [part for name in ("state", "log") for part in (f"--{name}", places[name])]
    done = train(inputs, places["out"], *more, spec=changed(total_steps=4))
    reasons = "(Operation not permitted|Permission denied|Read-only file system)"
    assert (done.code, len(done.lines)) == (74, 1), done.lines
    assert re.fullmatch(rf"error: {READ_ONLY}\S*: {reasons}", done.lines[0]), done.lines
    assert not list((tmp_path / "out").glob("*"))


def test_e24_a_disk_that_is_full(
    inputs: TrainingInputs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file and what is free; the checkpoint before stays as it is."""
    from pipeline import artifacts

    before = contents(out)
    write = artifacts.sync

    def refuse(path: Path) -> None:
        if "step_00000008" in path.name:
            raise OSError(errno.ENOSPC, "no space")
        write(path)

    monkeypatch.setattr(artifacts, "sync", refuse)
    done = train(inputs, out, *SECOND)
    pattern = r".*/step_00000008\.safetensors: no space left on the disk, \d+ bytes free"
    assert_refused(done, 74, pattern, out)
    assert contents(out) == before


def other_size() -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    spec["architecture"]["encoder"]["hidden_size"] = 24
    return spec


C13: list[tuple[dict[str, Any], str]] = [
    (other_size(), "architecture.encoder.hidden_size: 16 -> 24"),
    (changed(seed=8), "optimization.seed: 7 -> 8"),
    (changed(batch_size=16), "optimization.batch_size: 8 -> 16"),
    (changed(micro_batches=8), "optimization.micro_batches: 4 -> 8"),
    (changed(learning_rate=0.02), "optimization.learning_rate: 0.01 -> 0.02"),
]


@pytest.mark.parametrize(("spec", "difference"), C13)
def test_c13_other_settings(
    inputs: TrainingInputs, out: Path, spec: dict[str, Any], difference: str
) -> None:
    before = contents(out)
    pattern = f"{STEP}.json: made for other settings or inputs: settings.{difference}"
    assert_refused(train(inputs, out, *SECOND, spec=spec), 78, pattern, out)
    assert contents(out) == before


def test_c13_other_data(inputs: TrainingInputs, out: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_inputs(tmp_path / "other", LINES.replace("0\n", "1\n"))
    done = train(inputs, out, *SECOND, instances=other.instances)
    pattern = rf"{STEP}.json: made for other settings or inputs: inputs.instances: \w+ -> \w+"
    assert_refused(done, 78, pattern, out)


def test_g8_another_version_of_torch(
    inputs: TrainingInputs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.artifacts.version", lambda package: "9.9.9")
    pattern = rf"{STEP}.json: made for other settings or inputs: versions.torch: \S+ -> 9\.9\.9"
    assert_refused(train(inputs, out, *SECOND), 78, pattern, out)


def start_rank(
    rank: int, inputs: TrainingInputs, out: Path, store: Path, **environment: str
) -> Any:
    """Start one rank of two, as the launcher does."""
    arguments = command("pretrain", "--spec", json.dumps(SPEC), "--instances", inputs.instances,
                        "--vocab", inputs.vocab, "--out", out)  # fmt: skip
    place = {"PIPELINE_RANK": str(rank), "PIPELINE_RANKS": "2", "PIPELINE_STORE": str(store)}
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env={**os.environ, **place, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_g4_a_rank_that_meets_nobody(inputs: TrainingInputs, tmp_path: Path) -> None:
    alone = start_rank(
        0, inputs, tmp_path / "run", tmp_path / "store", PIPELINE_COLLECTIVE_SECONDS="1"
    )
    lines = alone.communicate(timeout=60)[1].splitlines()
    assert alone.returncode == 75
    assert len(lines) == 1 and lines[0].startswith("error: rank 0 of 2 did not meet the others: ")
    assert not list((tmp_path / "run").glob("*"))


def test_g5_ranks_that_see_other_files(inputs: TrainingInputs, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_inputs(tmp_path / "other", LINES.replace("0\n", "1\n"))
    ranks = [
        start_rank(rank, given, tmp_path / "run", tmp_path / "store")
        for rank, given in enumerate((inputs, other))
    ]
    said = [rank.communicate(timeout=60)[1].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [76, 76]
    line = "at the start: ranks hold different values, first in instances"
    errors = [line for line in said[0] if line.startswith("error: ")]
    assert errors == [f"error: {line}"] and said[1] == [f"rank 1: {line}"]
    assert not list((tmp_path / "run").glob("*"))


STUCK = """
import os, signal, sys
from pipeline.__main__ import main
from pipeline.training.loop import Learner
update = Learner.update
def stopping(self, step, *rest):
    if self.ranks.rank == 1 and step == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return update(self, step, *rest)
Learner.update = stopping
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_p14_a_rank_that_is_stuck(inputs: TrainingInputs, tmp_path: Path) -> None:
    """Rank 1 stops in its third update; the other one waits no longer than it is told to."""
    arguments = ["pretrain", "--spec", json.dumps(SPEC), "--instances", inputs.instances]
    arguments += ["--vocab", inputs.vocab, "--out", tmp_path / "run", "--set", "ranks=2"]
    done = subprocess.run(
        [sys.executable, "-c", STUCK, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PIPELINE_COLLECTIVE_SECONDS": "10"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 75, done.stderr
    told = "error: rank 0 had no answer from another rank, which is gone or stuck: .*"
    assert len(lines) == 1 and re.fullmatch(told, lines[0])
    assert "Traceback" not in done.stderr
    assert train(inputs, tmp_path / "run").code == 0


def test_g9_a_device_that_is_not_there(inputs: TrainingInputs, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = train(inputs, tmp_path / "run", "--set", "device=cuda")
    assert done.code == 78 and len(done.lines) == 1
    assert done.lines[0].startswith("error: device cuda: no CUDA device here")


def average(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str]]:
    code = main(["average", *map(str, arguments)])
    return code, capsys.readouterr().err.splitlines()


def test_e19_nothing_to_average(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, lines = average(capsys, "--models", "--out", tmp_path / "mean.safetensors")
    assert (code, len(lines)) == (64, 1) and lines[0] == (
        "error: python -m pipeline average: argument --models: expected at least one argument; "
        "see `python -m pipeline average --help`"
    )
    assert not list(tmp_path.iterdir())


def test_e19_one_file_by_two_names(
    capsys: pytest.CaptureFixture[str], first: Path, tmp_path: Path
) -> None:
    path, link = first / f"{STEP}.safetensors", tmp_path / "link.safetensors"
    link.symlink_to(path)
    out = tmp_path / "mean.safetensors"
    code, lines = average(capsys, "--models", path, link, "--out", out)
    assert (code, lines) == (64, ["error: --models: a model is given twice"])
    assert not out.exists()
