"""Test rows that were seen before, as the report tells of them."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import read_json_artifact, write_json
from pipeline.report.exports import to_json, to_markdown
from pipeline.report.overlap import Share, corpus_note, overlaps
from pipeline.report.page import render_page
from pipeline.report.tables import Report
from tests.pipeline.report.test_page import make_report
from tests.pipeline.report.zoo import DATASET, SEEDS, Zoo


def rewrite(zoo: Zoo, start: str, seed: int, **fields: Any) -> None:
    """Publish a metrics file with other fields; None takes one out."""
    path = zoo.results / f"6_evaluate/reviews_lstm/{DATASET}/{start}_seed_{seed}.json"
    record = {**read_json_artifact(path), **fields}
    write_json(path, {key: value for key, value in record.items() if value is not None})


def apart(repeats: int, accuracy: float | None) -> dict[str, Any]:
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return {"repeats": repeats, "scored": 1741 - repeats, "metrics": metrics}


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_rows_and_scores_of_each_place(zoo: Zoo) -> None:
    for seed, score in zip(SEEDS, (0.80, 0.81, 0.82), strict=True):
        fields = {"in_corpus": apart(40, score), "in_either": apart(41, score - 0.01)}
        rewrite(zoo, "pretrained", seed, **fields)
    report = make_report(zoo)
    random, pretrained = overlaps(report, DATASET)[:2]
    assert (random.start, pretrained.start, pretrained.scored) == ("random", "pretrained", 1741)
    assert random.shares["in_corpus"] == Share(None, None)
    assert random.shares["without_repeats"].rows == 14
    assert pretrained.shares["in_corpus"].rows == 40
    assert pretrained.shares["in_corpus"].score == pytest.approx(81)
    assert pretrained.shares["in_either"].score == pytest.approx(80)
    assert pretrained.score == pytest.approx(85.98, abs=0.01)


def test_the_page_and_its_other_forms_tell_it(zoo: Zoo) -> None:
    for seed in SEEDS:
        fields = {"in_corpus": apart(1040, 0.8), "in_either": apart(1041, 0.79)}
        rewrite(zoo, "pretrained", seed, **fields)
    report = make_report(zoo)
    text = words(render_page(report))
    note = (
        "Test rows that stand in the pre-training corpus: reviews_lstm 1,040, reviews_bert_tiny 3."
    )
    assert note in text
    assert "reviews_lstm pre-trained 1,741 85.98 14 85.98 1,040 80.00 1,041 79.00" in text
    assert "| reviews_lstm | pretrained | 1,741 | 85.98 | 14 | 85.98 | 1,040 | 80.00 |" in (
        to_markdown(report)
    )
    (table,) = to_json(report)["overlap"]
    row = next(r for r in table["rows"] if r["start"] == "pretrained")
    assert row["in_corpus"] == {"rows": 1040, "score_without": pytest.approx(80)}


def test_metrics_of_before_have_no_such_fields(zoo: Zoo) -> None:
    for path in (zoo.results / "6_evaluate").rglob("*_seed_*.json"):
        record = read_json_artifact(path)
        fields = ("without_repeats", "in_corpus", "in_either")
        write_json(path, {key: value for key, value in record.items() if key not in fields})
    report = make_report(zoo)
    assert overlaps(report, DATASET) == []
    assert "seen before" not in render_page(report) + to_markdown(report)
    assert to_json(report)["overlap"] == []


def test_no_rows_left_is_no_score(zoo: Zoo) -> None:
    for seed in SEEDS:
        rewrite(zoo, "pretrained", seed, in_corpus=apart(1741, None))
    pretrained = overlaps(make_report(zoo), DATASET)[1]
    assert pretrained.shares["in_corpus"] == Share(1741, None)


def test_nothing_is_noted_where_nobody_looked(finished: Zoo) -> None:
    report = make_report(finished)
    random = [row for row in overlaps(report, DATASET) if row.start == "random"]
    assert (corpus_note(random), corpus_note([])) == ("", "")
    assert overlaps(Report(report.spec, []), DATASET) == []


def test_the_corpus_is_among_the_inputs(finished: Zoo, tmp_path: Path) -> None:
    (lstm, _) = make_report(finished).recipes
    step = next(s for s in lstm.lineage if s.path.endswith("pretrained_seed_7.json"))
    assert "corpus reviews" in dict(step.inputs)
