"""Pre-training through the command line: the same bytes however it is cut, and clear refusals."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact, read_tensor_stamp
from tests.faults.kit import (
    ROOT,
    SPEC,
    build_inputs,
    command,
    flip_bit,
    pretrain,
    steps_logged,
    weights,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return build_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """One undisturbed run on one rank."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = pretrain(inputs, out)
    assert done.returncode == 0, done.stderr
    return out


def changed(**optimization):
    spec = copy.deepcopy(SPEC)
    spec["optimization"].update(optimization)
    return spec


def test_checkpoints_carry_what_later_stages_need(whole):
    metadata = read_tensor_stamp(whole / "step_00000012.safetensors")
    assert metadata["architecture"]["encoder"]["name"] == "lstm"
    assert metadata["tokenizer"] == "bert"
    assert metadata["token_ids"]["pad"] == 0
    assert set(metadata["stamp"]["inputs"]) == {"instances", "vocabulary", "init"}


def test_the_loss_falls_and_the_held_out_loss_is_recorded(whole):
    records = [read_json_artifact(whole / f"step_{n:08d}.json") for n in (4, 8, 12)]
    held_out = [record["held_out"]["loss"] for record in records]
    assert held_out[0] > held_out[1] > held_out[2]
    assert [line["step"] for line in records[1]["curve"]] == [5, 6, 7, 8]
    assert records[2]["tokens"] > records[1]["tokens"] > 0


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_gives_the_same_files(inputs, whole, tmp_path, ranks):
    """G10: whatever the order of hashes."""
    more = ("--set", f"ranks={ranks}")
    done = pretrain(inputs, tmp_path / "run", *more, PYTHONHASHSEED=str(ranks))
    assert done.returncode == 0, done.stderr
    for path in sorted(whole.iterdir()):
        assert (tmp_path / "run" / path.name).read_bytes() == path.read_bytes(), path.name


def test_any_number_of_ranks_gives_the_same_files_in_mixed_precision(inputs, whole, tmp_path):
    for ranks in (1, 2):
        out = tmp_path / f"ranks_{ranks}"
        done = pretrain(inputs, out, "--set", f"ranks={ranks}", spec=changed(precision="bf16"))
        assert done.returncode == 0, done.stderr
    files = {path.name: path.read_bytes() for path in (tmp_path / "ranks_1").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "ranks_2").iterdir()}
    full, mixed = (read_json_artifact(out / "step_00000012.json")["loss"] for out in (whole, out))
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.02)


def test_segments_one_by_one_give_the_same_files(inputs, whole, tmp_path):
    for start, ranks in ((0, 2), (4, 1), (8, 4)):
        done = pretrain(
            inputs, tmp_path / "run", "--from", start, "--to", start + 4, "--set", f"ranks={ranks}"
        )
        assert done.returncode == 0, done.stderr
    for path in sorted(whole.iterdir()):
        assert (tmp_path / "run" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("steps", [12, 3])
def test_one_segment_or_four_give_the_same_weights(inputs, whole, tmp_path, steps):
    done = pretrain(inputs, tmp_path / "run", spec=changed(checkpoint_steps=steps))
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "run") == weights(whole)


def test_a_second_call_trains_nothing(inputs, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert pretrain(inputs, whole).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_a_deleted_checkpoint_is_published_again_without_training(inputs, tmp_path):
    out = tmp_path / "run"
    spec = changed(total_steps=4)
    assert pretrain(inputs, out, spec=spec).returncode == 0
    digest = weights(out, 4)
    for path in out.iterdir():
        path.unlink()
    done = pretrain(inputs, out, spec=spec)
    assert done.returncode == 0, done.stderr
    assert "continues after step 4" in done.stderr
    assert weights(out, 4) == digest


def test_ddp_agrees_with_the_tree_within_its_tolerance(inputs, whole, tmp_path):
    spec = changed(reduction="ddp")
    done = pretrain(inputs, tmp_path / "run", "--set", "ranks=2", spec=spec)
    assert done.returncode == 0, done.stderr
    tree = read_json_artifact(whole / "step_00000012.json")["loss"]
    ddp = read_json_artifact(tmp_path / "run" / "step_00000012.json")["loss"]
    assert ddp == pytest.approx(tree, rel=1e-5)


def test_torchrun_ranks_give_the_same_weights(inputs, whole, tmp_path):
    arguments = command("pretrain", "--spec", json.dumps(SPEC), "--instances", inputs.instances,
                        "--vocab", inputs.vocab, "--out", tmp_path / "run")[1:]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "run") == weights(whole)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_stop_signal_saves_and_the_same_command_continues(inputs, tmp_path, number):
    out, spec = tmp_path / "run", changed(total_steps=150, checkpoint_steps=150, resume_steps=150)
    arguments = command("pretrain", "--spec", json.dumps(spec), "--instances", inputs.instances,
                        "--vocab", inputs.vocab, "--out", out, "--set", "ranks=2")  # fmt: skip
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run.log" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert time.monotonic() < deadline, "no step within a minute"
        os.sched_yield()
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "saved; the same command continues" in said
    assert not list(out.glob("*"))
    reached = steps_logged(out)[-1]
    assert pretrain(inputs, out, "--set", "ranks=1", spec=spec).returncode == 0
    assert steps_logged(out) == list(range(1, 151))
    assert reached < 150
    undisturbed = tmp_path / "undisturbed"
    assert pretrain(inputs, undisturbed, "--set", "ranks=2", spec=spec).returncode == 0
    assert weights(out, 150) == weights(undisturbed, 150)


def test_two_targets_on_sentence_pairs(tmp_path):
    pairs = build_inputs(tmp_path, "sentences")
    spec = copy.deepcopy(SPEC)
    spec["targets"] = ["mlm", "nsp"]
    spec["architecture"] = {
        "embedding": {"name": "bert"},
        "encoder": {"name": "transformer", "hidden_size": 16, "num_layers": 1, "num_heads": 2,
                    "feedforward_size": 32},
    }  # fmt: skip
    digests = set()
    for ranks in (1, 4):
        out = tmp_path / f"run{ranks}"
        done = pretrain(pairs, out, "--set", f"ranks={ranks}", spec=spec)
        assert done.returncode == 0, done.stderr
        digests.add(weights(out))
    assert len(digests) == 1
    record = read_json_artifact(out / "step_00000012.json")
    assert set(record["metrics"]) == {"mlm_accuracy", "nsp_accuracy"}


def test_starting_from_another_model(inputs, whole, tmp_path):
    init = whole / "step_00000012.safetensors"
    done = pretrain(inputs, tmp_path / "run", "--init", init)
    assert done.returncode == 0, done.stderr
    first = read_json_artifact(tmp_path / "run" / "step_00000004.json")
    assert first["curve"][0]["loss"] < read_json_artifact(whole / "step_00000004.json")["loss"]


# Refusals: (changes of the spec, further arguments, exit code, what stderr must say) -----------

REFUSED = [
    (changed(micro_batches=2), ["--set", "ranks=4"], 78, "4 do not divide the 2 micro-batches"),
    (changed(batch_size=1000), [], 65, "rows are fewer than one batch of 1000"),
    (changed(checkpoint_steps=5), [], 78, "checkpoint_steps 5 does not divide total_steps 12"),
    (changed(learning_rate=0), [], 78, "learning_rate: input should be greater than 0, found '0'"),
    (changed(learning_rte=1), [], 78, "learning_rte: unknown key"),
    ({**SPEC, "targets": ["mln"]}, [], 78, "no target 'mln'; did you mean 'mlm'?"),
    ({**SPEC, "targets": ["nsp"]}, [], 78, "nsp"),
    (SPEC, ["--from", "3", "--to", "7"], 64, "not a segment"),
    (SPEC, ["--from", "4", "--to", "8"], 66, "step_00000004.json: no such file"),
    (SPEC, ["--init", "nowhere.safetensors"], 66, "nowhere.safetensors: no such model"),
    (SPEC, ["--set", "device=cuda"], 78, "device cuda: no CUDA device here"),
]  # fmt: skip


def refuse(capsys, inputs, out, *more, spec=SPEC, vocab=None):
    """Run in this process, which is quicker; return the exit code and the lines of error."""
    arguments = ["pretrain", "--spec", json.dumps(spec), "--instances", inputs.instances,
                 "--vocab", vocab or inputs.vocab, "--out", out, *more]  # fmt: skip
    code = main(list(map(str, arguments)))
    lines = capsys.readouterr().err.splitlines()
    return code, [line for line in lines if line.startswith("error: ")]


@pytest.mark.parametrize(("spec", "more", "code", "text"), REFUSED)
def test_refusals_say_what_is_wrong_and_leave_nothing(
    inputs, tmp_path, capsys, spec, more, code, text
):
    found, errors = refuse(capsys, inputs, tmp_path / "run", *more, spec=spec)
    assert found == code, errors
    assert len(errors) == 1
    assert text in errors[0]
    assert not list((tmp_path / "run").glob("*"))


def test_instances_of_another_vocabulary_are_refused(inputs, tmp_path, capsys):
    other = tmp_path / "vocab.txt"
    other.write_text(inputs.vocab.read_text(encoding="utf-8") + "extra\n", encoding="utf-8")
    code, errors = refuse(capsys, inputs, tmp_path / "run", vocab=other)
    assert code == 78
    assert "made with vocabulary" in errors[0]


def _copy(whole: Path, out: Path) -> None:
    out.mkdir()
    for path in whole.glob("step_00000004*"):
        (out / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize("ending", ["safetensors", "optimizer.safetensors", "json"])
def test_a_damaged_checkpoint_is_not_continued(inputs, whole, tmp_path, capsys, ending):
    out = tmp_path / "run"
    _copy(whole, out)
    flip_bit(out / f"step_00000004.{ending}", seed=1)
    code, errors = refuse(capsys, inputs, out, "--from", 4, "--to", 8)
    assert code == 76, errors
    assert f"step_00000004.{ending}" in errors[0]
    assert not (out / "step_00000008.safetensors").exists()


def test_a_checkpoint_of_other_settings_is_not_continued(inputs, whole, tmp_path, capsys):
    out = tmp_path / "run"
    _copy(whole, out)
    spec = changed(learning_rate=0.02)
    code, errors = refuse(capsys, inputs, out, "--from", 4, "--to", 8, spec=spec)
    assert code == 78
    assert "settings.optimization.learning_rate: 0.01 -> 0.02" in errors[0]


def test_a_second_writer_is_refused(inputs, tmp_path):
    from pipeline.artifacts import writer_lock

    with writer_lock(tmp_path / "run.state"):
        done = pretrain(inputs, tmp_path / "run", "--set", "ranks=2")
    assert done.returncode == 73, done.stderr
    assert f"process {os.getpid()}" in done.stderr
