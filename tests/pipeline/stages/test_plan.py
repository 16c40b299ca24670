"""The stage plan: sizes from the best that is at hand, costs from them by plain arithmetic."""

from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact
from pipeline.config import load_catalog
from pipeline.stages.planning import TOKENS_PER_CHARACTER, Plan, Speed, Texts

ROOT = Path(__file__).parents[3]
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


def test_text_is_measured_where_it_is(catalog, tmp_path: Path) -> None:
    size = texts(catalog, tmp_path).instances("lines")
    length = round(20 * TOKENS_PER_CHARACTER)
    assert (size.tokens, size.rows, set(size.lengths)) == (100 * length, 100, {length})
    assert size.known_from == "estimated from text"


def test_without_text_rows_are_assumed_to_be_full(catalog, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "text.txt").unlink()
    size = texts(catalog, tmp_path).instances("lines")
    assert (size.tokens, size.lengths) == (0, [50])
    assert "not at hand" in size.known_from


def test_costs_are_plain_arithmetic(catalog, tmp_path: Path) -> None:
    plan = Plan(catalog, texts(catalog, tmp_path), "small", parameters=1_000_000)
    costs = {cost.stage: cost for cost in plan.costs(SPEED, SPEED, ranks=1)}
    assert list(costs) == [
        "vocab", "instances", "pretrain", "average", "finetune", "evaluate", "report",
    ]  # fmt: skip
    length = round(20 * TOKENS_PER_CHARACTER)
    assert costs["pretrain"].tokens == 100 * 10 * length
    assert costs["pretrain"].jobs == 4
    assert costs["pretrain"].seconds == pytest.approx(100 * 10 * length / 1000 + 4 * 4)
    assert costs["pretrain"].disk_bytes == (2 + 6) * 4_000_000
    assert costs["finetune"].jobs == 6  # three seeds, two starts
    # 5 rows, 2 epochs, 2 learning rates, 6 runs; a row of the file is its label, a tab, the text
    row = round(10 * TOKENS_PER_CHARACTER)
    assert costs["finetune"].tokens == pytest.approx(5 * row * 2 * 2 * 6, rel=0.1)


def test_ranks_divide_the_time(catalog, tmp_path: Path) -> None:
    plan = Plan(catalog, texts(catalog, tmp_path), "small", parameters=1)
    one, two = (
        {cost.stage: cost.seconds for cost in plan.costs(SPEED, SPEED, ranks)} for ranks in (1, 2)
    )
    assert 1.8 < (one["pretrain"] - 16) / (two["pretrain"] - 16) < 2


def test_a_stated_speed_needs_no_rehearsal(catalog, tmp_path: Path) -> None:
    """At the 84,386 tokens a second that are published for 8 GPUs."""
    out = tmp_path / "plan.json"
    arguments = ["plan", "--config", str(tmp_path / "config"), "--out", str(out)]
    assert main([*arguments, "--tokens-per-second", "84386"]) == 0
    costs = read_json_artifact(out, "plan")["recipes"]["small"]
    assert [cost["stage"] for cost in costs][2] == "pretrain"


def test_a_rehearsal_is_of_the_trainer_itself(
    catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.stages.plan.REHEARSAL_SECONDS", 0.1)
    assert main(["plan", "small", "--config", str(tmp_path / "config")]) == 0
    shown = capsys.readouterr().out
    assert "tokens/s on each of 1 ranks" in shown
    assert "in all" in shown


def test_unknown_recipes(catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "smal", "--config", str(tmp_path / "config")]) == 64
    assert "did you mean 'small'?" in capsys.readouterr().err
