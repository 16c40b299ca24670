"""Plans for devices that are not at hand: stated speed, device-hours, several recipes together."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.config import load_catalog
from pipeline.stages.planning import StageCost, add_up
from tests.pipeline.test_catalog_needs import ZOO

GOOGLE = {"total_steps": 1_000_000, "checkpoint_steps": 100_000, "batch_size": 1000}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The training of Google's BERT: 1 M steps of 128,000 tokens, whose text is not at hand."""
    zoo: dict[str, Any] = {**ZOO, "zoo/general": {**ZOO["zoo/general"], "optimization": GOOGLE}}
    zoo["zoo/again"] = zoo["zoo/general"]
    for name, section in zoo.items():
        path = tmp_path / "config" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(section), encoding="utf-8")
    return tmp_path / "config"


def test_published_time_at_the_published_speed(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    stated = ["--tokens-per-second", "84386", "--devices", "24", "--config", str(config)]
    # `again` shares vocabulary and instances with `general`.
    assert main(["plan", "general", "again", *stated, "--out", str(out)]) == 0
    plans = json.loads(out.read_text("utf-8"))["recipes"]
    training = next(cost for cost in plans["general"] if cost["stage"] == "pretrain")
    assert training["tokens"] == 1.28e11
    assert training["seconds"] / 86_400 == pytest.approx(17.6, abs=0.05)
    said = capsys.readouterr().out
    lines = [line.split() for line in said.split("\n") if line.startswith(" pretrain")]
    assert [line[-1] for line in lines] == ["10,112.6", "10,112.6", "20,225.1"]
    assert "2 recipes together" in said


def test_what_recipes_share_is_made_once(config: Path) -> None:
    catalog = load_catalog(config)

    def costs(seconds: float) -> list[StageCost]:
        stages = ("vocab", "instances", "pretrain", "report")
        return [StageCost(stage, 1, 10, seconds, int(seconds), 5) for stage in stages]

    total = add_up(catalog, {"general": costs(2.0), "again": costs(2.0), "special": costs(3.0)})
    assert [(cost.stage, cost.jobs, cost.seconds, cost.memory_bytes) for cost in total] == [
        ("vocab", 1, 3.0, 3),
        ("instances", 2, 5.0, 3),
        ("pretrain", 3, 7.0, 3),
        ("report", 1, 3.0, 3),
    ]
