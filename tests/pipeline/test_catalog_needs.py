"""What a recipe or data set needs, lacks, and which runs remain: on a small zoo for the test."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.catalog import Catalog
from pipeline.config import load_catalog

DIGEST = "0" * 64
SPLIT = {"train": 0.8, "dev": 0.1, "test": 0.1}
TRAINING: dict[str, Any] = {
    "architecture": "tiny",
    "targets": ["lm"],
    "optimization": {"total_steps": 4, "checkpoint_steps": 2, "batch_size": 8},
}
ZOO: dict[str, Any] = {
    "config": {"recipes": ["general"], "datasets": ["public", "private"]},
    "corpora/news": {"sources": [{"path": "news.txt"}], "needs": "news.txt, one text a line"},
    "corpora/task": {"sources": [{"dataset": "private", "part": "train"}]},
    "datasets/public": {
        "task": "classify",
        "split": {
            "sources": [
                {"url": "https://example.org/a.tsv", "path": "a.tsv", "sha256": DIGEST, "label": 0}
            ],
            "shares": SPLIT,
        },
    },
    "datasets/private": {
        "task": "classify",
        "files": {"train": {"path": "p/train.tsv"}, "test": {"path": "p/test.tsv"}},
        "split": {"shares": {"train": 0.9, "dev": 0.1}},
    },
    "vocabularies/words": {
        "imported": {"url": "https://example.org/v.txt", "sha256": DIGEST},
    },
    "instances/news": {"kind": "lines", "corpora": ["news"], "vocabulary": "words"},
    "instances/task": {"kind": "lines", "corpora": ["task"], "vocabulary": "words"},
    "architectures/tiny": {"embedding": "word", "encoder": {"name": "lstm", "hidden_size": 8}},
    "zoo/general": {"instances": "news", **TRAINING},
    "zoo/special": {"instances": "task", "initial": "general", **TRAINING},
    "zoo/foreign": {
        "architecture": "tiny",
        "vocabulary": "words",
        "imported": {"converter": "huggingface", "source": {"path": "models/foreign"}},
        "needs": "folder models/foreign",
    },
    "zoo/random": {
        "architecture": "tiny",
        "vocabulary": "words",
        "datasets": ["private"],
        "finetune": {"starts": ["random"], "seeds": [1, 2]},
    },
}
NEWS = "news.txt, one text a line"
PRIVATE = "p/train.tsv, p/test.tsv in the mirror"


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    for name, section in ZOO.items():
        path = tmp_path / "config" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(section))
    monkeypatch.chdir(tmp_path)
    return load_catalog(Path("config"), {"mirror": "mirror"})


def supply(*names: str, root: str = "mirror") -> None:
    """Put empty files where a user would."""
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_without_files(catalog: Catalog):
    assert catalog.unavailable("general") == NEWS
    assert catalog.unavailable("special") == f"{PRIVATE}; {NEWS}"
    assert catalog.unavailable("foreign") == "folder models/foreign"
    assert catalog.unavailable("random") == PRIVATE
    assert (catalog.lacking("public"), catalog.lacking("private")) == ("", PRIVATE)


def test_needs_are_told_whether_or_not_the_files_are_there(catalog: Catalog):
    supply("news.txt")
    assert catalog.needs("general") == catalog.needs("special") == [NEWS]
    assert catalog.needs("foreign") == ["folder models/foreign"]
    assert catalog.needs("random") == []


def test_a_file_in_the_mirror_or_here_is_enough(catalog: Catalog):
    supply("news.txt")
    supply("p/train.tsv", "p/test.tsv", root=".")
    supply("models/foreign/config.json")
    assert [catalog.unavailable(name) for name in catalog.zoo] == [""] * 4
    assert catalog.place("news.txt") == Path("mirror/news.txt")
    assert catalog.place("p/train.tsv") == Path("p/train.tsv")


def test_the_mirror_comes_before_what_is_here(catalog: Catalog):
    supply("news.txt")
    supply("news.txt", root=".")
    assert catalog.place("news.txt") == Path("mirror/news.txt")


def test_without_setting_the_mirror_is_that_of_fetch(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    plain = load_catalog(Path("config"))
    supply("news.txt", root="data/mirror")
    assert plain.unavailable("general") == ""
    monkeypatch.setenv("PIPELINE_MIRROR", "elsewhere")
    assert plain.unavailable("general") == NEWS
    supply("news.txt", root="elsewhere")
    assert plain.unavailable("general") == ""


def test_one_missing_part_is_named_alone(catalog: Catalog):
    supply("p/train.tsv")
    assert catalog.lacking("private") == "p/test.tsv in the mirror"


def test_runs_remain_on_the_data_sets_that_can_be_had(catalog: Catalog):
    supply("news.txt")
    assert catalog.unavailable("general") == ""
    assert {run.dataset for run in catalog.runs("general")} == {"public", "private"}
    assert {run.dataset for run in catalog.available_runs("general")} == {"public"}
    assert catalog.available_runs("random") == []
    assert len(catalog.runs("random")) == 2


def test_what_is_for_people_reaches_no_stage(catalog: Catalog):
    assert catalog.corpus_spec("news") == {"sources": [{"path": "news.txt"}]}


def test_the_corpora_of_a_model_are_those_of_its_chain(catalog: Catalog):
    assert catalog.corpora_of("general") == ["news"]
    assert catalog.corpora_of("special") == ["task", "news"]
    assert catalog.corpora_of("foreign") == catalog.corpora_of("random") == []


def test_what_a_target_names_and_builds(catalog: Catalog):
    assert catalog.rows_of("all") == catalog.selected("all") == ["general"]
    assert catalog.rows_of("zoo") == ["foreign", "general", "random", "special"]
    assert catalog.selected("zoo") == catalog.rows_of("zoo_mini") == []
    supply("news.txt")
    assert catalog.selected("zoo") == ["general"]
