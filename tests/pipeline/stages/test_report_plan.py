"""`report` beside a plan: results/plan.json, which `plan --out` wrote."""

from pathlib import Path

import pytest

from pipeline.artifacts import read_json_artifact, write_json
from tests.pipeline.report.zoo import Zoo
from tests.pipeline.stages.test_report import failure, report, words


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return Zoo(tmp_path / "zoo").build()


def test_a_plan_stands_beside_what_ran(zoo: Zoo) -> None:
    assert report(zoo) == 0
    assert "Planned beside measured" not in words(zoo)
    lines = [{"stage": "pretrain", "jobs": 4, "seconds": 142.4}, {"stage": "vocab", "jobs": 1,
             "seconds": 1.0}]  # fmt: skip
    plan = {"stamp": {"stage": "plan", "format": 1}, "recipes": {"reviews_lstm": lines}}
    write_json(zoo.results / "plan.json", plan)
    assert report(zoo, "--json", zoo.folder / "page.json") == 0
    assert "reviews_lstm pretrain 4 /4 2 min 22 s 4 min 45 s 2.00" in words(zoo)
    recipes = read_json_artifact(zoo.folder / "page.json")["recipes"]
    assert [len(recipe["planned"]) for recipe in recipes] == [2, 0]


def test_a_plan_that_is_none_is_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(zoo.results / "plan.json", {"stamp": {"stage": "vocab", "format": 1}})
    (line,) = failure(zoo, capsys, 78)
    assert line.endswith("plan.json: made by stage 'vocab'; expected one of 'plan'")
    wrong = {"stamp": {"stage": "plan", "format": 1}, "recipes": {"reviews_lstm": [{"jobs": 1}]}}
    write_json(zoo.results / "plan.json", wrong)
    assert "plan.json: reviews_lstm" in failure(zoo, capsys, 65)[0]
