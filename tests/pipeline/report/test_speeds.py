"""Measured speeds: one strict form, and ratios only of what was measured alike."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import make_stamp, write_json
from pipeline.errors import ArtifactError, DataError, MissingError, PipelineError
from pipeline.report.settings import ReportedRatio
from pipeline.report.speeds import MeasuredSpeed, RatioRow, ratio_rows, read_speeds

TINY = {
    "model": "bert_tiny",
    "machine": "2 cores",
    "ranks": 2,
    "what": "train",
    "tokens_per_second": 1200,
    "spread": 11.5,
    "command": "python -m bench",
}
BASE = {**TINY, "model": "bert_base", "tokens_per_second": 100.0}
PUBLISHED = ReportedRatio(model="bert_tiny", than="bert_base", times=12, source="updates")


def write(folder: Path, speeds: Any) -> Path:
    path = folder / "speed.json"
    write_json(path, {"stamp": make_stamp("bench_models", {}, {}), "speeds": speeds})
    return path


def test_measurements_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = read_speeds(write(tmp_path, [TINY, BASE]))
    assert [speed.model for speed in found] == ["bert_tiny", "bert_base"]
    assert found[0].tokens_per_second == 1200 and found[0].setting == ("2 cores", 2, "train")
    assert read_speeds(write(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, ": no list of speeds; see pipeline/report/speeds.py"),
        ([3], ": speeds.0: not an object"),
        ([TINY, {**BASE, "rank": 2}], ": speeds.1.rank: unknown key; did you mean 'ranks'?"),
        ([{**TINY, "what": "both"}], ": speeds.0.what: input should be 'train' or 'infer'"),
        (
            [{**TINY, "tokens_per_second": 0}],
            ": speeds.0.tokens_per_second: input should be greater",
        ),
        ([{**TINY, "spread": -1}], ": speeds.0.spread: input should be greater than or equal to 0"),
        ([{**TINY, "ranks": "2"}], ": speeds.0.ranks: input should be a valid integer"),
        ([{**TINY, "model": "../x"}], ": speeds.0.model: string should match pattern"),
        ([{k: v for k, v in TINY.items() if k != "command"}], ": speeds.0.command: field required"),
        ([TINY, TINY], ": bert_tiny, train, 2 ranks on 2 cores: listed twice"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, value: Any, problem: str) -> None:
    path = write(tmp_path, value)
    with pytest.raises(DataError) as raised:
        read_speeds(path)
    assert raised.value.problems[0].startswith(f"{path}{problem}")


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read_speeds(write(tmp_path, [{**TINY, "ranks": 0}, 1]))
    assert len(raised.value.problems) == 2


def test_an_edited_file(tmp_path: Path) -> None:
    path = write(tmp_path, [TINY])
    text = path.read_text().replace("1200", "1300")
    path.chmod(0o644)
    path.write_text(text)
    with pytest.raises(ArtifactError):
        read_speeds(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        read_speeds(tmp_path / "speed.json")
    with pytest.raises(PipelineError):
        read_speeds(tmp_path)


def test_ratios_are_of_one_machine_ranks_and_work() -> None:
    speeds = [MeasuredSpeed(**values) for values in (TINY, BASE)]
    other = [MeasuredSpeed(**{**BASE, "what": "infer"}), MeasuredSpeed(**{**TINY, "ranks": 1})]
    assert ratio_rows([PUBLISHED], [*speeds, *other]) == [
        RatioRow(PUBLISHED, 12.0, ("2 cores", 2, "train"))
    ]
    assert ratio_rows([PUBLISHED], [speeds[0], *other]) == [RatioRow(PUBLISHED)]
    assert ratio_rows([], speeds) == []
