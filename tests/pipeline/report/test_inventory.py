"""Artefacts found by digest."""

import shutil
from pathlib import Path

import pytest

from pipeline.artifacts import make_stamp, write_json
from pipeline.errors import ArtifactError, MissingError
from pipeline.report.inventory import artifact_files, read_artifact, scan
from tests.faults.kit import flip_bit
from tests.pipeline.report.zoo import DATASET, Zoo


def record(path: Path, stage: str, inputs: dict[str, object], **fields: object) -> Path:
    write_json(path, {"stamp": make_stamp(stage, {}, inputs), **fields})
    return path


def test_a_record_is_known_by_its_own_digest_and_by_what_it_vouches_for(tmp_path: Path) -> None:
    path = record(tmp_path / "v.json", "vocab", {}, vocabulary="a" * 32, other="b" * 32)
    artifact = read_artifact(path)
    assert artifact is not None
    assert artifact.digests == {artifact.digest, "a" * 32}


def test_inputs_may_be_lists_and_none(tmp_path: Path) -> None:
    path = record(tmp_path / "a.json", "average", {"models": ["c" * 64, "d" * 64], "init": None})
    artifact = read_artifact(path)
    assert artifact is not None
    assert artifact.inputs == [("models", "c" * 64), ("models", "d" * 64)]


def test_the_way_back_from_a_score_to_the_text(finished: Zoo) -> None:
    inventory = scan(finished.results, finished.folder / "data")
    assert inventory.problems == {}
    metrics = finished.results / f"6_evaluate/reviews_lstm/{DATASET}/pretrained_seed_7.json"
    stages = [artifact.stage for artifact in inventory.ancestors(inventory.at(metrics))]
    assert sorted(stages) == [
        "average", "fetch", "fetch", "finetune", "instances", "pretrain", "pretrain", "pretrain",
        "vocab",
    ]  # fmt: skip


def test_a_random_start_has_no_pretraining_behind_it(finished: Zoo) -> None:
    inventory = scan(finished.results, finished.folder / "data")
    metrics = finished.results / f"6_evaluate/reviews_lstm/{DATASET}/random_seed_7.json"
    stages = {artifact.stage for artifact in inventory.ancestors(inventory.at(metrics))}
    assert stages == {"finetune", "vocab", "fetch"}


def test_of_two_files_with_equal_weights_the_one_at_its_place_is_the_input(zoo: Zoo) -> None:
    step = zoo.results / "3_pretrain/reviews_lstm/step_00000500.safetensors"
    step.unlink()
    shutil.copy(zoo.results / "4_average/reviews_lstm.safetensors", step)
    inventory = scan(zoo.results)
    run = zoo.results / f"5_finetune/reviews_lstm/{DATASET}/pretrained_seed_7.safetensors"
    sources = {link.role: link.source for link in inventory.links(inventory.at(run))}
    assert sources["init"] is inventory.at(zoo.results / "4_average/reviews_lstm.safetensors")


def test_what_cannot_be_read_is_a_problem_of_its_own(zoo: Zoo) -> None:
    path = zoo.results / "1_vocab/reviews.json"
    flip_bit(path, 5)
    inventory = scan(zoo.results)
    assert list(inventory.problems) == [path]
    with pytest.raises(ArtifactError, match=r"reviews\.json"):
        inventory.at(path)
    with pytest.raises(MissingError, match=r"other\.json: no such file"):
        inventory.at(path.with_name("other.json"))


def test_logs_hidden_and_temporary_files_are_no_artefacts(tmp_path: Path) -> None:
    for name in ("a.json", "logs/b.json", ".c.json", "d/.e.json.tmp-1-x", "benchmarks/x/f.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(artifact_files(tmp_path)) == [tmp_path / "a.json"]
    assert list(artifact_files(tmp_path / "a.json")) == [tmp_path / "a.json"]
    assert list(artifact_files(tmp_path / "nothing")) == []
    assert read_artifact(tmp_path / "benchmarks/x/f.tsv") is None
