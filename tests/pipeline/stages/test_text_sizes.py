"""How much text there is: counted, read whole, sampled, or assumed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.artifacts import write_json
from pipeline.config import load_catalog
from pipeline.stages.text_sizes import SAMPLE_BYTES, TOKENS_PER_CHARACTER, Texts

SPLIT = {"train": 0.75, "dev": 0.125, "test": 0.125}
SECTIONS: dict[str, Any] = {
    "corpora/text": {"sources": [{"path": "text.txt"}]},
    "corpora/documents": {"sources": [{"path": "documents.txt"}], "format": "documents"},
    "corpora/training": {"sources": [{"dataset": "split", "part": "train"}]},
    "datasets/split": {
        "task": "classify",
        "split": {"shares": SPLIT, "sources": [
            {"path": "good.txt", "label": 1}, {"path": "bad.txt", "label": 0},
        ]},
    },
    "datasets/files": {
        "task": "classify",
        "files": {"train": {"path": "train.tsv"}, "test": {"path": "test.tsv"}},
        "split": {"shares": {"train": 0.8, "dev": 0.2}},
        "duplicates": "keep",
    },
    "vocabularies/text": {"built": {"corpora": ["text"]}},
    "architectures/lstm": {"embedding": "word", "encoder": {"name": "lstm", "hidden_size": 8}},
    "zoo/small": {
        "instances": "text",
        "architecture": "lstm",
        "targets": ["lm"],
        "optimization": {"total_steps": 4, "checkpoint_steps": 2},
    },
    "config": {"recipes": ["small"]},
}  # fmt: skip


def instances(corpus: str, **more: Any) -> dict[str, Any]:
    fields = {"kind": "lines", "corpora": [corpus], "vocabulary": "text", "seq_length": 50}
    return {**fields, **more}


@pytest.fixture
def make(tmp_path: Path):
    """Return a function: sections over those above -> the sizes of their texts."""

    def made(**sections: Any) -> Texts:
        every = {**SECTIONS, "instances/text": instances("text")}
        for name, section in {**every, **sections}.items():
            path = tmp_path / "config" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(section), encoding="utf-8")
        (tmp_path / "mirror").mkdir(exist_ok=True)
        catalog = load_catalog(tmp_path / "config", {"mirror": str(tmp_path / "mirror")})
        return Texts(catalog, tmp_path / "results", tmp_path / "data", tmp_path / "mirror")

    return made


def supply(folder: Path, name: str, *rows: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def long(characters: int) -> int:
    """Return the tokens that so many characters are taken for."""
    return round(characters * TOKENS_PER_CHARACTER)


def test_text_is_measured_where_it_is(make, tmp_path: Path) -> None:
    supply(tmp_path, "mirror/text.txt", *["字" * 20] * 99, "", "字" * 20)
    size = make().instances("text")
    assert (size.tokens, size.rows, set(size.lengths)) == (100 * long(20), 100, {long(20)})
    assert size.known_from == "estimated from text"


def test_without_text_rows_are_assumed_to_be_full(make) -> None:
    size = make().instances("text")
    assert (size.tokens, size.rows, size.lengths, size.mean_length) == (0, 0, [50], 50)
    assert size.known_from == "text not at hand, full rows assumed"


def test_what_was_counted_wins_and_the_text_tells_the_lengths(make, tmp_path: Path) -> None:
    record = {"stamp": {"stage": "instances", "format": 1}, "tokens": 900, "rows": 30}
    (tmp_path / "results/2_instances/text").mkdir(parents=True)
    write_json(tmp_path / "results/2_instances/text/manifest.json", record)
    assert make().instances("text").lengths == [30]
    supply(tmp_path, "mirror/text.txt", "字" * 10, "字" * 40)
    size = make().instances("text")
    assert (size.tokens, size.rows, size.mean_length) == (900, 30, 30)
    assert (size.lengths, size.known_from) == ([long(10), long(40)], "counted in instances")


def test_long_lines_are_split_or_cut_as_the_instances_are(make, tmp_path: Path) -> None:
    supply(tmp_path, "mirror/text.txt", "字" * 100, "字" * 20)
    whole, rest = long(100), long(20)
    size = make().instances("text")
    assert (size.lengths, size.rows, size.tokens) == ([50, whole - 50, rest], 3, whole + rest)
    cut = {"instances/text": instances("text", long_documents="truncate")}
    size = make(**cut).instances("text")
    assert (size.lengths, size.rows, size.tokens) == ([50, rest], 2, 50 + rest)


def test_rows_of_documents_are_not_lines(make, tmp_path: Path) -> None:
    sentences = instances("documents", kind="sentences", seq_length=100)
    supply(tmp_path, "mirror/documents.txt", "字" * 20, "字" * 9, "", "字" * 40)
    size = make(**{"instances/text": sentences}).instances("text")
    assert (size.rows, size.lengths) == (2, [long(30), long(40)])


def test_repeats_that_will_be_dropped_do_not_count(make, tmp_path: Path) -> None:
    supply(
        tmp_path, "mirror/good.txt", *(f"好{number:03d}" for number in range(80)), *["好000"] * 80
    )
    supply(tmp_path, "mirror/bad.txt", *["好001"] * 20, *["坏"] * 20)
    size = make().part("split", "train")
    assert (size.rows, size.tokens) == (round(81 * 0.75), round((80 * long(4) + 1) * 0.75))
    corpus = {"instances/text": instances("training")}
    assert make(**corpus).instances("text").rows == size.rows


def test_over_the_limit_repeats_are_not_looked_for_and_that_is_said(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply(tmp_path, "mirror/text.txt", *["字" * 20] * 100)
    drop = {"corpora/text": {**SECTIONS["corpora/text"], "duplicates": "drop"}}
    assert make(**drop).instances("text").rows == 1
    monkeypatch.setattr("pipeline.stages.text_sizes.WHOLE_BYTES", 100)
    size = make(**drop).instances("text")
    assert size.rows == 100
    assert size.known_from.startswith("estimated from text (over ")
    assert size.known_from.endswith("MB: taken to have no repeats)")


def test_a_sample_is_from_all_over_a_file(make, tmp_path: Path) -> None:
    """A file that has its long lines first, as one sorted by label may have."""
    rows = ["字" * 40] * 20_000 + ["字" * 10] * 60_000
    path = supply(tmp_path, "mirror/text.txt", *rows)
    assert path.stat().st_size > 4 * SAMPLE_BYTES
    size = make().instances("text")
    assert size.rows == pytest.approx(80_000, rel=0.1)
    assert size.tokens == pytest.approx(20_000 * long(40) + 60_000 * long(10), rel=0.1)
    assert len(size.lengths) <= 4000


def test_parts_that_are_cut_from_a_train_file(make, tmp_path: Path) -> None:
    supply(tmp_path, "mirror/train.tsv", "label\ttext_a", *["1\t字字字字字字"] * 99)
    supply(tmp_path, "mirror/test.tsv", "label\ttext_a", *["1\t字字字字字字"] * 9)
    texts = make()
    rows = [texts.part("files", part).rows for part in ("train", "dev", "test")]
    assert rows == [80, 20, 10]
    assert texts.part("split", "train") is None


def test_a_fetched_part_is_measured_itself(make, tmp_path: Path) -> None:
    supply(tmp_path, "data/datasets/split/dev.tsv", "label\ttext_a", "1\t字字字字")
    assert make().part("split", "dev").rows == 2


def test_an_empty_text_is_no_text(make, tmp_path: Path) -> None:
    supply(tmp_path, "mirror/text.txt", "", " ")
    assert make().instances("text").known_from == "text not at hand, full rows assumed"
