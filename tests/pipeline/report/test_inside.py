"""Answers of probes: read only if they are whole and of the recipe's own model."""

from pathlib import Path

import pytest

from pipeline.artifacts import make_stamp, read_tensor_stamp, write_json
from pipeline.errors import ArtifactError, ConfigError, DataError
from pipeline.report.inside import probe_files, read_answers
from tests.faults.kit import flip_bit
from tests.pipeline.report.zoo import PROBES, Zoo


def average(zoo: Zoo, recipe: str) -> Path:
    return zoo.results / f"4_average/{recipe}.safetensors"


def record(zoo: Zoo, recipe: str, probe: str) -> Path:
    return zoo.results / probe_files(recipe, probe)[0]


@pytest.mark.parametrize("recipe", PROBES)
def test_each_probe_fills_its_own_field(finished: Zoo, recipe: str) -> None:
    for name, (kind, _, rows, _) in PROBES[recipe].items():
        answers = read_answers(record(finished, recipe, name), average(finished, recipe))
        assert (answers.name, answers.probe, answers.checked) == (name, kind, True)
        filled = [answers.neighbours, answers.gaps, answers.continuations]
        assert [len(field) for field in filled if field] == ([] if kind == "tags" else [len(rows)])


def test_neighbours_keep_their_order_and_their_sentence(finished: Zoo) -> None:
    name = "reviews_bert_tiny"
    answers = read_answers(record(finished, name, "in_sentences"), average(finished, name))
    assert answers.neighbours[0].sentence == "房间很好，下次还来"
    assert list(answers.neighbours[0].neighbours) == ["棒", "大"]


def test_shares_are_summed_by_tag(finished: Zoo) -> None:
    name = "reviews_bert_tiny"
    tags = read_answers(record(finished, name, "tags"), average(finished, name)).tags
    assert tags and (tags.words, tags.share, tags.chance) == (3, 0.6333, 0.3512)
    assert [(row.tag, row.words, round(row.share, 6)) for row in tags.by_tag] == [
        ("n", 2, 0.7),
        ("ns", 1, 0.5),
    ]


def test_without_the_model_answers_stand_unchecked(finished: Zoo, tmp_path: Path) -> None:
    path = record(finished, "reviews_lstm", "texts")
    assert not read_answers(path, tmp_path / "none.safetensors").checked


def test_answers_of_another_model_are_refused(finished: Zoo) -> None:
    path, other = record(finished, "reviews_lstm", "texts"), average(finished, "reviews_bert_tiny")
    theirs = read_tensor_stamp(other)["weights"]
    ours = read_tensor_stamp(average(finished, "reviews_lstm"))["weights"]
    line = f"{path}: answers of model {ours[:12]}..., but {other} is {theirs[:12]}...; run the"
    with pytest.raises(ArtifactError, match=line.replace(".", r"\.")):
        read_answers(path, other)


@pytest.mark.parametrize("place", [0, 1], ids=["record", "rows"])
def test_damage_is_found(zoo: Zoo, place: int) -> None:
    path = zoo.results / probe_files("reviews_lstm", "texts")[place]
    flip_bit(path, 77)
    with pytest.raises(ArtifactError) as raised:
        read_answers(record(zoo, "reviews_lstm", "texts"), average(zoo, "reviews_lstm"))
    assert str(raised.value).startswith(f"{path}:")


def test_rows_that_lack_a_field_are_told_by_place(zoo: Zoo) -> None:
    model = read_tensor_stamp(average(zoo, "reviews_lstm"))["weights"]
    path = zoo.probe("reviews_lstm", "characters", model, neighbours="near")
    with pytest.raises(DataError) as raised:
        read_answers(path, average(zoo, "reviews_lstm"))
    rows = path.with_suffix(".jsonl")
    assert raised.value.problems[0].startswith(f"{rows}: neighbours.0.neighbours: input should be")


def test_probes_that_no_report_shows_are_refused(zoo: Zoo) -> None:
    path = record(zoo, "reviews_lstm", "texts")
    stamp = make_stamp("probe", {"probe": "features"}, {"model": None})
    write_json(path, {"stamp": stamp, "books": {}, "output": None})
    with pytest.raises(ConfigError, match="of probe 'features'; a report shows cloze, generate"):
        read_answers(path, average(zoo, "reviews_lstm"))
    write_json(path, {"stamp": make_stamp("evaluate", {}, {}), "books": {}})
    with pytest.raises(ConfigError, match="made by stage 'evaluate'; expected one of 'probe'"):
        read_answers(path, average(zoo, "reviews_lstm"))
