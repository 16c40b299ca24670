"""The stage plan: sizes from the best that is at hand, costs from them by plain arithmetic."""

from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact
from pipeline.config import load_catalog
from pipeline.stages.plan import finetune_rehearsal
from pipeline.stages.planning import (
    DATA_JOB_SECONDS,
    START_SECONDS,
    STARTS_OF_PRETRAIN,
    STARTS_OF_TASKS,
    Plan,
    Speed,
)
from pipeline.stages.text_sizes import TOKENS_PER_CHARACTER, Texts
from tests.pipeline.report.zoo import BENCHMARK_COLUMNS

ROOT = Path(__file__).parents[3]
STARTS = STARTS_OF_PRETRAIN * START_SECONDS
SPEED = Speed(tokens_per_second=1000.0, peak_bytes=1 << 20)


@pytest.fixture
def catalog(tmp_path: Path):
    """Return a catalog with one recipe of 100 steps of 10 rows, on a text in a mirror."""
    files = {
        "config": f"{{recipes: [small], datasets: [reviews], mirror: '{tmp_path}/mirror'}}",
        "corpora/text": "sources: [{path: text.txt}]",
        "datasets/reviews": "{task: classify, files: {train: {path: train.tsv}, "
        "dev: {path: train.tsv}, test: {path: train.tsv}}, finetune: {learning_rate: [1e-3, 2e-3], "
        "epochs: 2, train_rows: 5, seeds: [1, 2, 3]}}",
        "vocabularies/text": "built: {corpora: [text], size: 100}",
        "instances/lines": "{kind: lines, corpora: [text], vocabulary: text, seq_length: 50}",
        "architectures/lstm": "{embedding: word, encoder: {name: lstm, hidden_size: 8}}",
        "zoo/small": "{instances: lines, architecture: lstm, targets: [lm], average: {last: 2}, "
        "optimization: {total_steps: 100, checkpoint_steps: 25, batch_size: 10}}",
    }
    for name, text in files.items():
        path = tmp_path / "config" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "text.txt").write_text(("字" * 20 + "\n") * 100, encoding="utf-8")
    (mirror / "train.tsv").write_text(
        "label\ttext_a\n" + "1\t好好好好好好好好\n" * 9, encoding="utf-8"
    )
    return load_catalog(tmp_path / "config")


def texts(catalog, folder: Path) -> Texts:
    return Texts(catalog, folder / "results", folder / "data", folder / "mirror")


def test_costs_are_plain_arithmetic(catalog, tmp_path: Path) -> None:
    plan = Plan(catalog, texts(catalog, tmp_path), "small", parameters=1_000_000)
    costs = {cost.stage: cost for cost in plan.costs(SPEED, SPEED, ranks=1)}
    assert list(costs) == [
        "vocab", "instances", "pretrain", "average", "finetune", "evaluate", "report",
    ]  # fmt: skip
    length = round(20 * TOKENS_PER_CHARACTER)
    assert costs["pretrain"].tokens == 100 * 10 * length
    assert costs["pretrain"].jobs == 4
    assert costs["pretrain"].seconds == pytest.approx(100 * 10 * length / 1000 + 4 * STARTS)
    assert costs["pretrain"].disk_bytes == (2 + 6) * 4_000_000
    assert costs["finetune"].jobs == 6  # three seeds, two starts
    # 5 rows, 2 epochs, 2 learning rates, 6 runs; a row of the file is its label, a tab, the text
    row = round(10 * TOKENS_PER_CHARACTER)
    assert costs["finetune"].tokens == pytest.approx(5 * row * 2 * 2 * 6, rel=0.1)
    # After each epoch the 9 rows of dev and the header, at a third of the cost.
    judged = 10 * row * 2 * 2 * 6 / 3
    working = costs["finetune"].seconds - 6 * STARTS_OF_TASKS * START_SECONDS
    assert working == pytest.approx((5 * row * 24 + judged) / 1000, rel=0.1)


def test_cross_validation_is_so_many_trainings_more(catalog, tmp_path: Path) -> None:
    path = tmp_path / "config/zoo/small.yaml"
    path.write_text(path.read_text().replace("average:", "finetune: {folds: 5}, average:"))
    again = load_catalog(tmp_path / "config")
    once, folded = (
        {cost.stage: cost.tokens for cost in plan.costs(SPEED, SPEED, ranks=1)}["finetune"]
        for plan in (
            Plan(catalog, texts(catalog, tmp_path), "small", 1),
            Plan(again, texts(again, tmp_path), "small", 1),
        )
    )
    assert folded == once * (2 + 4) / 2


def test_a_segmenter_takes_its_time(catalog, tmp_path: Path) -> None:
    path = tmp_path / "config/vocabularies/text.yaml"
    path.write_text(f"tokenizer: word\n{path.read_text()}")
    again = load_catalog(tmp_path / "config")
    plain, segmented = (
        {cost.stage: cost.seconds for cost in plan.costs(SPEED, SPEED, ranks=1)}["vocab"]
        for plan in (
            Plan(catalog, texts(catalog, tmp_path), "small", 1),
            Plan(again, texts(again, tmp_path), "small", 1),
        )
    )
    assert segmented - DATA_JOB_SECONDS == pytest.approx(100 * (plain - DATA_JOB_SECONDS))


def test_every_rank_takes_memory(catalog, tmp_path: Path) -> None:
    plan = Plan(catalog, texts(catalog, tmp_path), "small", parameters=1 << 20)
    one, two = (
        {cost.stage: cost.memory_bytes for cost in plan.costs(SPEED, SPEED, ranks)}
        for ranks in (1, 2)
    )
    assert two["pretrain"] == 2 * one["pretrain"]


def test_a_stated_speed_needs_no_rehearsal(catalog, tmp_path: Path) -> None:
    """At the 84,386 tokens a second that are published for 8 GPUs."""
    out = tmp_path / "plan.json"
    arguments = ["plan", "--config", str(tmp_path / "config"), "--out", str(out)]
    assert main([*arguments, "--tokens-per-second", "84386"]) == 0
    costs = read_json_artifact(out, "plan")["recipes"]["small"]
    assert [cost["stage"] for cost in costs][2] == "pretrain"


def benchmark(folder: Path, job: str, seconds: float) -> None:
    """Write what Snakemake writes of a job."""
    path = folder / "results/benchmarks" / f"{job}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [seconds, "0:00:01", 300.5, 1, 1, 1, 1, 1, 90.0, seconds]
    path.write_text(f"{BENCHMARK_COLUMNS}\n" + "\t".join(map(str, values)) + "\n")


def plan_at(folder: Path, *more: str) -> list[str]:
    """Return the command line of a plan at a stated speed of 1000 tokens a second."""
    paths = [f"--{name}={folder / name}" for name in ("config", "results", "data")]
    return ["plan", "small", *paths, "--tokens-per-second", "1000", *more]


def test_what_has_run_stands_beside_the_plan(
    catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (25, 50):
        benchmark(tmp_path, f"pretrain/small/step_{step:08d}", 12.0)
    for run in ("random_seed_1", "pretrained_seed_2"):
        benchmark(tmp_path, f"evaluate/small/reviews/{run}", 4.0)
    # Jobs that are none of the plan's: another step, seed and recipe.
    benchmark(tmp_path, "pretrain/small/step_00000030", 1000.0)
    benchmark(tmp_path, "evaluate/small/reviews/random_seed_9", 1000.0)
    benchmark(tmp_path, "pretrain/other/step_00000025", 1000.0)
    out = tmp_path / "plan.json"
    assert main(plan_at(tmp_path, "--out", str(out))) == 0
    lines = capsys.readouterr().out.splitlines()
    record = read_json_artifact(out, "plan")
    costs = {cost["stage"]: cost for cost in record["recipes"]["small"]}
    pretrain, evaluate = record["measured"]["small"]
    assert (pretrain["measured_jobs"], pretrain["jobs"], pretrain["seconds"]) == (2, 4, 24.0)
    assert pretrain["predicted_seconds"] == pytest.approx(costs["pretrain"]["seconds"] / 2)
    assert (evaluate["measured_jobs"], evaluate["seconds"]) == (2, 8.0)
    ratio = 24.0 / pretrain["predicted_seconds"]
    assert any(line.split()[-5:] == ["(2", "of", "4", "jobs)", f"{ratio:.2f}"] for line in lines)
    assert lines[1].split()[-3:] == ["measured", "of", "plan"]
    assert lines[-1].split()[:2] == ["in", "all"] and "(4 of 10 jobs)" in lines[-1]


def test_before_anything_ran_there_is_the_plan_alone(
    catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(plan_at(tmp_path)) == 0
    assert "measured" not in capsys.readouterr().out


def test_a_table_that_is_no_benchmark(
    catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark(tmp_path, "vocab/text", 1.0)
    (tmp_path / "results/benchmarks/vocab/text.tsv").write_text("a\tb\n1\t2\n")
    assert main(plan_at(tmp_path, "--out", str(tmp_path / "plan.json"))) == 65
    assert "text.tsv: not a Snakemake benchmark" in capsys.readouterr().err
    assert not (tmp_path / "plan.json").exists()


def test_data_sets_that_are_not_at_hand_are_named(
    catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mirror/train.tsv").unlink()
    assert main(plan_at(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "not at hand, not counted in fine-tuning: reviews" in said


def test_a_rehearsal_is_of_the_trainer_itself(
    catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.stages.plan.REHEARSAL_SECONDS", 0.1)
    assert main(["plan", "small", "--config", str(tmp_path / "config")]) == 0
    shown = capsys.readouterr().out
    assert "tokens/s on one rank" in shown
    assert "in all" in shown


def test_fine_tuning_is_rehearsed_on_rows_as_long_as_the_data_sets(catalog, tmp_path: Path) -> None:
    plan = Plan(catalog, texts(catalog, tmp_path), "small", parameters=1)
    values, lengths = finetune_rehearsal(catalog, plan)
    assert values["epochs"] == 2
    assert round((len("1\t") + 8) * TOKENS_PER_CHARACTER) in lengths


def test_unknown_recipes(catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "smal", "--config", str(tmp_path / "config")]) == 64
    assert "did you mean 'small'?" in capsys.readouterr().err
