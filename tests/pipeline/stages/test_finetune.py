"""Fine-tuning through the command line: same bytes, resumable, chosen on dev, clear refusals."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.artifacts import (
    digest_bytes,
    read_json_artifact,
    read_tensor_stamp,
    writer_lock,
)
from pipeline.training import runs
from pipeline.training.checkpoint import load_tensors
from tests.pipeline.labelled import (
    BERT,
    LSTM,
    evaluate,
    finetune,
    reviews,
    run,
    tree,
    write,
    write_table,
    write_vocabulary,
)

SPEC = {
    "architecture": LSTM,
    "task": "classify",
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.01,
    "seq_length": 24,
    "pooling": "mean",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Vocabulary, train.tsv and dev.tsv of real reviews, and a model fine-tuned on them."""
    folder = tmp_path_factory.mktemp("data")
    rows = reviews(120)
    write_vocabulary(folder, *rows)
    write_table(folder / "train.tsv", "label|text_a", rows[:80])
    write_table(folder / "dev.tsv", "label|text_a", rows[80:])
    done = finetune(folder, SPEC, folder / "train.tsv", folder / "dev.tsv")
    assert done.code == 0, done.err
    return folder


def tune(data: Path, out: Path, *more: object, **changes: object):
    """Fine-tune on the data into `out`/model.safetensors."""
    return run(
        *("finetune", "--spec", json.dumps({**SPEC, **changes})),
        *("--train", data / "train.tsv", "--dev", data / "dev.tsv", "--vocab", data / "vocab.txt"),
        *("--out", out / "model.safetensors", *more),
    )


def metadata(folder: Path):
    return read_tensor_stamp(folder / "model.safetensors")


def test_a_model_carries_what_later_stages_need(data):
    found = metadata(data)
    assert found["labels"] == ["0", "1"]
    assert found["label_counts"] == [40, 40]
    assert found["task"]["name"] == "classify"
    assert (found["seq_length"], found["pooling"], found["pairs"]) == (24, "mean", False)
    assert (found["tokenizer"], found["lowercase"]) == ("bert", True)
    assert found["rows"]["train"]["used"] == found["rows"]["train"]["chosen"] == 80
    assert found["dev"]["metric"] == "accuracy"
    assert [line["epoch"] for line in found["dev"]["history"]] == [1, 2]
    assert found["dev"]["score"] == max(line["score"] for line in found["dev"]["history"])
    tensors, _ = load_tensors(data / "model.safetensors")
    kinds = {name.partition(".")[0] for name in tensors}
    assert kinds == {"embedding", "encoder", "head", "seen"}


def test_metrics_are_json_lines_and_no_state_stays(data):
    lines = (data / "model.safetensors.log" / "metrics.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["step"], second["step"]) == (10, 20)
    assert {"loss", "learning_rate", "tokens", "tokens_per_second", "dev_accuracy"} <= set(first)
    assert not (data / "model.safetensors.state").exists()


def test_the_same_command_gives_the_same_bytes(data, tmp_path):
    assert tune(data, tmp_path).code == 0
    same = (tmp_path / "model.safetensors").read_bytes()
    assert same == (data / "model.safetensors").read_bytes()
    assert tune(data, tmp_path, "--set", "seed=8").code == 0
    assert same != (tmp_path / "model.safetensors").read_bytes()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[int]:
    """Send this process SIGTERM after an update; return the counter of updates."""
    passages = itertools.count(1)

    def interrupt(name: str) -> None:
        if next(passages) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runs, "crash_point", interrupt)
    return passages


@pytest.mark.parametrize("point", [3, 10, 13, 27])
def test_stopped_by_a_signal_it_continues_to_the_same_bytes(data, tmp_path, monkeypatch, point):
    changes = {"learning_rate": [0.003, 0.01]}
    assert tune(data, tmp_path / "whole", **changes).code == 0
    passages = interrupt_at(monkeypatch, point)
    stopped = tune(data, tmp_path / "cut", **changes)
    assert stopped.code == 75
    assert stopped.errors == [
        f"error: stopped at step {point} of 40, saved; the same command continues"
    ]
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    done = tune(data, tmp_path / "cut", **changes)
    assert done.code == 0
    assert f"continues after step {point}" in done.err
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == whole
    assert next(passages) == 41


@pytest.mark.parametrize("place", ["finetune-step:13", "written:3", "renamed:2"])
def test_killed_it_continues_to_the_same_bytes(data, tmp_path, place):
    command = [sys.executable, "-m", "pipeline", "finetune", "--spec", json.dumps(SPEC)]
    files = {"--train": "train.tsv", "--dev": "dev.tsv", "--vocab": "vocab.txt"}
    command += [str(part) for flag, name in files.items() for part in (flag, data / name)]
    command += ["--out", str(tmp_path / "model.safetensors"), "--state", str(tmp_path / "state")]
    environment = {**os.environ, "PIPELINE_RESUME_SECONDS": "0", "PIPELINE_CRASH_AT": place}
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "model.safetensors").exists()
    done = tune(data, tmp_path, "--state", tmp_path / "state")
    assert done.code == 0
    assert "continues after step" in done.err
    same = (data / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == same
    assert tree(tmp_path) == {"model.safetensors"}


def test_a_second_writer_is_refused(data, tmp_path):
    with writer_lock(tmp_path / "model.safetensors.state"):
        refused = tune(data, tmp_path)
    assert refused.code == 73
    assert "another process writes here" in refused.errors[0]


def test_the_best_of_several_rates_is_published(data, tmp_path):
    assert tune(data, tmp_path, learning_rate=[0.03, 1e-6, 0.01]).code == 0
    dev = metadata(tmp_path)["dev"]
    tried = [line["learning_rate"] for line in dev["history"]]
    assert tried == [1e-6, 1e-6, 0.01, 0.01, 0.03, 0.03]
    best = max(dev["history"], key=lambda line: (line["score"], -line["learning_rate"]))
    assert (dev["score"], dev["learning_rate"]) == (best["score"], best["learning_rate"])
    assert tune(data, tmp_path / "alone", learning_rate=dev["learning_rate"]).code == 0
    ours, _ = load_tensors(tmp_path / "model.safetensors")
    theirs, _ = load_tensors(tmp_path / "alone" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_score_of_0_is_saved_too(data, tmp_path):
    rows = (data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    positive = [row for row in rows[1:] if row.startswith("1")]
    dev = write(tmp_path / "dev.tsv", rows[0], *positive)
    spec = {**SPEC, "learning_rate": 1e-9, "epochs": 1, "task": {"name": "classify"}}
    for seed in range(3):
        spec["seed"] = seed
        done = run(
            *("finetune", "--spec", json.dumps(spec), "--train", data / "train.tsv"),
            *("--dev", dev, "--vocab", data / "vocab.txt", "--out", tmp_path / "model.safetensors"),
        )
        assert done.code == 0
        assert metadata(tmp_path)["dev"]["score"] in {0.0, 1.0}


def test_fewer_rows_are_the_first_by_digest(data, tmp_path):
    assert tune(data, tmp_path, train_rows=24, dev_rows=5, epochs=1).code == 0
    found = metadata(tmp_path)
    assert found["rows"]["dev"]["chosen"] == 5
    assert found["rows"]["train"]["chosen"] == sum(found["label_counts"]) == 24
    small, _ = load_tensors(tmp_path / "model.safetensors")
    whole, _ = load_tensors(data / "model.safetensors")
    digests = torch.sort(whole["seen.digests"].view(torch.uint64).to(torch.float64))[0]
    chosen = torch.sort(small["seen.digests"].view(torch.uint64).to(torch.float64))[0]
    assert torch.equal(chosen, digests[:24])


def fold_of(text: str, folds: int) -> int:
    return int(digest_bytes(text.encode())[:15], 16) % folds


def test_cross_validation_scores_each_fold_as_if_by_hand(data, tmp_path, monkeypatch):
    assert tune(data, tmp_path / "whole", folds=3).code == 0
    found = metadata(tmp_path / "whole")["cross_validation"]
    header, *rows = (data / "train.tsv").read_text(encoding="utf-8").splitlines()
    inside = [row for row in rows if fold_of(row.partition("\t")[2], 3) == 1]
    left_out = write(tmp_path / "left_out.tsv", header, *inside)
    train = write(tmp_path / "train.tsv", header, *(row for row in rows if row not in inside))
    (tmp_path / "vocab.txt").write_bytes((data / "vocab.txt").read_bytes())
    assert finetune(tmp_path, SPEC, train, data / "dev.tsv").code == 0
    assert evaluate(tmp_path, left_out).code == 0
    metrics = read_json_artifact(tmp_path / "metrics.json")["metrics"]
    assert found["folds"][1] == metrics
    scores = [fold["accuracy"] for fold in found["folds"]]
    assert found["mean"]["accuracy"] == pytest.approx(sum(scores) / 3)
    whole, _ = load_tensors(tmp_path / "whole" / "model.safetensors")
    plain, _ = load_tensors(data / "model.safetensors")
    assert all(torch.equal(whole[name], plain[name]) for name in plain)
    interrupt_at(monkeypatch, 40)
    assert tune(data, tmp_path / "cut", folds=3).code == 75
    assert tune(data, tmp_path / "cut", folds=3).code == 0
    again = (tmp_path / "cut" / "model.safetensors").read_bytes()
    assert again == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_more_folds_than_texts_are_refused(data, tmp_path):
    refused = tune(data, tmp_path, folds=100)
    assert refused.code == 65
    assert refused.errors[0].endswith("100 are too many for 80 distinct texts or questions")


def test_patience_ends_a_run_that_stands_still(data, tmp_path):
    assert tune(data, tmp_path, patience=1, epochs=6, learning_rate=1e-9).code == 0
    assert [line["epoch"] for line in metadata(tmp_path)["dev"]["history"]] == [1, 2]


def test_accumulation_changes_no_more_than_rounding(data, tmp_path):
    architecture = json.loads(json.dumps(LSTM))
    architecture["embedding"]["dropout"] = architecture["encoder"]["dropout"] = 0.0
    weights = []
    for parts in (1, 4):
        changes = {"micro_batches": parts, "architecture": architecture, "epochs": 1}
        assert tune(data, tmp_path, **changes).code == 0
        weights.append(load_tensors(tmp_path / "model.safetensors")[0])
    for name in weights[0]:
        if name != "seen.digests":
            torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("freeze", "moving"), [("embedding", {"encoder", "head"}), ("all", {"head"})]
)
def test_frozen_parts_keep_their_weights(data, tmp_path, freeze, moving):
    start = data / "model.safetensors"
    assert tune(data, tmp_path, "--init", start, freeze=freeze, epochs=1).code == 0
    before, _ = load_tensors(start)
    after, _ = load_tensors(tmp_path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.partition(".")[0] for name in changed} == moving


def largest_changes(data: Path, out: Path, **changes: object) -> dict[str, float]:
    """Return how far training moved each weight from where it starts."""
    weights = []
    for rate in (1e-12, 1e-3):
        assert tune(data, out, architecture=BERT, epochs=1, learning_rate=rate, **changes).code == 0
        weights.append(load_tensors(out / "model.safetensors")[0])
    before, after = weights
    names = [name for name in before if name.endswith("weight")]
    return {name: float((after[name] - before[name]).abs().max()) for name in names}


def test_layers_far_from_the_head_learn_less(data, tmp_path):
    whole = largest_changes(data, tmp_path, layer_decay=1.0)
    decayed = largest_changes(data, tmp_path, layer_decay=0.1)
    ratio = {name: decayed[name] / whole[name] for name in whole if whole[name]}
    assert 0.5 < ratio["head.output.weight"] < 2
    assert all(share < 0.2 for name, share in ratio.items() if ".layers.1." in name)
    assert all(share < 0.02 for name, share in ratio.items() if ".layers.0." in name)
    assert ratio["embedding.position.weight"] < 0.002


def test_a_fine_tuned_model_keeps_its_head_for_the_same_task_only(data, tmp_path):
    start = data / "model.safetensors"
    changes = {"learning_rate": 1e-12, "epochs": 1}
    assert tune(data, tmp_path, "--init", start, **changes).code == 0
    before, old = load_tensors(start)
    after, new = load_tensors(tmp_path / "model.safetensors")
    torch.testing.assert_close(after["head.output.weight"], before["head.output.weight"])
    assert new["stamp"]["inputs"]["init"] == old["weights"]
    assert tune(data, tmp_path, "--init", start, pooling="max", **changes).code == 0
    other, _ = load_tensors(tmp_path / "model.safetensors")
    assert not torch.allclose(other["head.output.weight"], before["head.output.weight"])


def test_the_initial_model_settles_its_own_settings(data, tmp_path):
    start = data / "model.safetensors"
    spec = {key: value for key, value in SPEC.items() if key != "architecture"}
    files = ["--train", data / "train.tsv", "--dev", data / "dev.tsv", "--init", start]
    out = ["--vocab", data / "vocab.txt", "--out", tmp_path / "model.safetensors"]
    assert run("finetune", "--spec", json.dumps(spec), *files, *out).code == 0
    assert metadata(tmp_path)["architecture"] == metadata(data)["architecture"]
    (tmp_path / "model.safetensors").unlink()
    for key, value, shown in (
        ("architecture", BERT, "architecture.embedding.dropout"),
        ("tokenizer", "char", "tokenizer: bert -> char"),
        ("lowercase", False, "lowercase: True -> False"),
        ("reference", "uer-2020", "reference: none -> uer-2020"),
    ):
        refused = run("finetune", "--spec", json.dumps({**spec, key: value}), *files, *out)
        assert refused.code == 78
        assert "made with other settings than the spec's" in refused.errors[0]
        assert shown.partition(".")[0] in refused.errors[0]
    assert tree(tmp_path) == set()


def test_mixed_precision_learns_nearly_the_same(data, tmp_path):
    assert tune(data, tmp_path, precision="bf16").code == 0
    ours, theirs = (metadata(folder)["dev"]["history"] for folder in (tmp_path, data))
    for low, full in zip(ours, theirs, strict=True):
        assert low["loss"] != full["loss"]
        assert low["loss"] == pytest.approx(full["loss"], rel=0.05)


def test_the_reference_preset_runs_for_every_pooling(data, tmp_path):
    digests = set()
    for pooling in ("first", "mean", "max", "last"):
        assert tune(data, tmp_path, reference="uer-2020", pooling=pooling, epochs=1).code == 0
        digests.add(metadata(tmp_path)["weights"])
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"architecture": None}, 78, "architecture: missing; without --init it must be given"),
        ({"task": "clasify"}, 78, "task.name: no task 'clasify'; did you mean 'classify'?"),
        ({"task": {"name": "classify", "drop": 1}}, 78, "task.drop: unknown key"),
        ({"micro_batches": 3}, 78, "micro_batches"),
        (
            {"seq_length": 128, "architecture": BERT},
            78,
            "seq_length: 128 is more than the 64 positions",
        ),
        (
            {
                "pooling": "first",
                "architecture": {
                    "embedding": "word",
                    "encoder": {"name": "lstm", "hidden_size": 8},
                },
            },
            78,
            "pooling: first sees one token only, because encoder lstm does not look ahead",
        ),
        ({"learning_rate": 1e30, "clip_norm": 0.0}, 70, "the gradient is not finite"),
    ],
)
def test_settings_that_cannot_be(data, tmp_path, changes, code, message):
    refused = tune(data, tmp_path, **changes)
    assert refused.code == code, refused.err
    assert message in refused.errors[0]
    assert not (tmp_path / "model.safetensors").exists()


def test_inputs_that_do_not_fit(data, tmp_path):
    (tmp_path / "other.txt").write_bytes((data / "vocab.txt").read_bytes() + b"zz\n")
    refused = tune(
        data, tmp_path, "--init", data / "model.safetensors", "--vocab", tmp_path / "other.txt"
    )
    assert refused.code == 78
    assert "made with vocabulary" in refused.errors[0]
    assert tune(data, tmp_path, "--init", tmp_path / "no.safetensors").code == 66
    assert tune(data, tmp_path, "--train", tmp_path / "no.tsv").code == 66
    assert tune(data, tmp_path, "--set", "ranks=2").code == 64
    damaged = bytearray((data / "model.safetensors").read_bytes())
    damaged[-9] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    assert tune(data, tmp_path, "--init", tmp_path / "damaged.safetensors").code == 76
    assert not (tmp_path / "model.safetensors").exists()


def test_a_directory_brings_its_own_vocabulary(data, tmp_path):
    model = tmp_path / "zoo"
    model.mkdir()
    (model / "model.safetensors").write_bytes((data / "model.safetensors").read_bytes())
    (model / "vocab.txt").write_bytes((data / "vocab.txt").read_bytes())
    files = ["--train", data / "train.tsv", "--dev", data / "dev.tsv"]
    command = ["finetune", "--spec", json.dumps({**SPEC, "epochs": 1}), *files]
    out = ["--out", tmp_path / "model.safetensors"]
    assert run(*command, "--init", model, *out).code == 0
    missing = run(*command, "--init", data / "model.safetensors", *out)
    assert (missing.code, missing.errors) == (
        64,
        ["error: --vocab is missing; only a model directory has its own vocabulary"],
    )
