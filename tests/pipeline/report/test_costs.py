"""Benchmarks and logs of a run."""

import math
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.report.costs import compare, read_resources, read_speed
from pipeline.report.results import Planned, Resources
from pipeline.report.settings import ReportedRecipe
from tests.pipeline.report.zoo import BENCHMARK_COLUMNS, Zoo

RECIPE = ReportedRecipe(name="tiny", vocabulary="reviews")


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_jobs_of_a_recipe_and_of_its_vocabulary(tmp_path: Path) -> None:
    row = "71.2\t0:01:11\t612.4\t4000\t500\t510\t12\t40\t97.1\t135.3"
    short = "0.4\t0:00:00\t-\t-\t-\t-\t-\t-\t0\tNA"
    write(tmp_path / "pretrain/tiny/step_00000004.tsv", BENCHMARK_COLUMNS, row)
    write(tmp_path / "vocab/reviews.tsv", BENCHMARK_COLUMNS, short)
    write(tmp_path / "pretrain/other/step_00000004.tsv", BENCHMARK_COLUMNS, row)
    pretrain, vocab = read_resources(tmp_path, RECIPE)
    assert (pretrain.stage, pretrain.job) == ("pretrain", "tiny/step_00000004")
    assert (pretrain.seconds, pretrain.peak_mb, pretrain.cpu_seconds) == (71.2, 612.4, 135.3)
    assert (vocab.stage, vocab.job, vocab.seconds) == ("vocab", "reviews", 0.4)
    assert math.isnan(vocab.peak_mb) and math.isnan(vocab.cpu_seconds)


@pytest.mark.parametrize("lines", [("a\tb", "1\t2"), (BENCHMARK_COLUMNS, "fast")])
def test_another_table_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    write(tmp_path / "vocab/reviews.tsv", *lines)
    with pytest.raises(DataError, match=r"reviews\.tsv: not a Snakemake benchmark"):
        read_resources(tmp_path, RECIPE)


def test_speed_is_the_median_and_torn_lines_do_not_count(tmp_path: Path) -> None:
    lines = [f'{{"step": {n}, "tokens_per_second": {speed}}}' for n, speed in enumerate((9, 1, 5))]
    write(tmp_path / "run/metrics.jsonl", *lines, '{"step": 9, "tokens_per')
    assert read_speed(tmp_path) == 5
    assert read_speed(tmp_path / "nothing") is None


def test_a_finished_zoo(finished: Zoo) -> None:
    jobs = read_resources(finished.results / "benchmarks", ReportedRecipe(name="reviews_lstm"))
    assert [job.stage for job in jobs] == ["finetune"] * 6 + ["pretrain"] * 4


def job(stage: str, seconds: float) -> Resources:
    return Resources(stage=stage, job="tiny", seconds=seconds, peak_mb=1, cpu_seconds=1)


def test_a_plan_beside_what_ran() -> None:
    plan = [Planned(stage=s, jobs=4, seconds=80) for s in ("pretrain", "finetune")]
    (found,) = compare(plan, [job("pretrain", 20), job("pretrain", 30), job("vocab", 1)])
    assert (found.stage, found.measured_jobs, found.jobs) == ("pretrain", 2, 4)
    assert (found.predicted_seconds, found.seconds, found.ratio) == (40, 50, 1.25)
    nothing = Planned(stage="vocab", jobs=1, seconds=0)
    assert math.isnan(compare([nothing], [job("vocab", 1)])[0].ratio)
    assert compare([], [job("vocab", 1)]) == compare(plan, []) == []
