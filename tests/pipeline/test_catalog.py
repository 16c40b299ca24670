"""What config/ says, resolved into what each stage receives."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.catalog import Catalog, Run
from pipeline.config import load_catalog
from pipeline.spec import FinetuneSpec, InstancesSpec, PretrainSpec, VocabSpec, validate

ROOT = Path(__file__).parents[2]
FILES: dict[str, dict[str, Any]] = {
    "config": {"recipes": ["small"], "datasets": ["reviews"]},
    "corpora/text": {"sources": [{"path": "text.txt"}], "description": "Text"},
    "datasets/reviews": {
        "task": "classify",
        "licence": "none",
        "files": {part: {"path": f"{part}.tsv"} for part in ("train", "dev", "test")},
        "finetune": {"epochs": 2, "learning_rate": 1e-3, "seeds": [1, 2]},
    },
    "vocabularies/text": {"tokenizer": "char", "built": {"corpora": ["text"], "size": 100}},
    "vocabularies/published": {"imported": {"path": "vocab.txt"}},
    "instances/lines": {
        "kind": "lines",
        "corpora": ["text"],
        "vocabulary": "text",
        "long_documents": "truncate",
        "jobs": 1,
        "shards": 3,
    },
    "architectures/lstm": {"embedding": "word", "encoder": {"name": "lstm", "hidden_size": 8}},
    "zoo/small": {
        "instances": "lines",
        "architecture": "lstm",
        "targets": ["lm"],
        "optimization": {"total_steps": 20, "checkpoint_steps": 5},
        "average": {"last": 2},
        "finetune": {"epochs": 5},
    },
    "zoo/random": {
        "architecture": "lstm",
        "vocabulary": "published",
        "finetune": {"starts": ["random"]},
    },
}
LSTM = {"embedding": {"name": "word"}, "encoder": {"name": "lstm", "hidden_size": 8}}


def build(folder: Path, **changes: dict[str, Any]) -> Catalog:
    """Return the catalog of FILES with some of them replaced."""
    for name, values in {**FILES, **changes}.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_catalog(folder)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return build(tmp_path / "config")


def test_fetch_receives_nothing_that_is_for_people(catalog: Catalog) -> None:
    assert catalog.corpus_spec("text") == {"sources": [{"path": "text.txt"}]}
    assert set(catalog.dataset_spec("reviews")) == {"task", "files"}


def test_vocab_receives_its_own_settings(catalog: Catalog) -> None:
    assert catalog.vocab_spec("text") == {"tokenizer": "char", "size": 100}
    assert catalog.vocab_spec("published") == {}
    assert catalog.vocabulary_source("published") == {"path": "vocab.txt"}


def test_instances_receive_how_the_vocabulary_cuts(catalog: Catalog) -> None:
    assert catalog.instances_spec("lines") == {
        "kind": "lines",
        "tokenizer": "char",
        "shards": 3,
        "long_documents": "truncate",
    }


def test_pretrain_receives_content_for_names(catalog: Catalog) -> None:
    assert catalog.pretrain_spec("small") == {
        "architecture": LSTM,
        "targets": [{"name": "lm"}],
        "optimization": {"total_steps": 20, "checkpoint_steps": 5},
    }


def test_a_recipe_wins_over_the_data_set(catalog: Catalog) -> None:
    spec = catalog.finetune_spec("small", "reviews", "random", 2)
    assert spec == {
        "architecture": LSTM,
        "task": {"name": "classify"},
        "epochs": 5,
        "learning_rate": 1e-3,
        "tokenizer": "char",
        "seed": 2,
    }
    assert "architecture" not in catalog.finetune_spec("small", "reviews", "pretrained", 2)


def test_seeds_of_the_main_file_win_over_all(tmp_path: Path) -> None:
    own = build(tmp_path / "own")
    assert own.runs("small") == [
        Run("small", "reviews", start, seed)  # type: ignore[arg-type]
        for start in ("pretrained", "random")
        for seed in (1, 2)
    ]
    main = {**FILES["config"], "seeds": [9]}
    assert {run.seed for run in build(tmp_path / "main", config=main).runs("small")} == {9}


def test_the_precision_of_the_main_file_is_that_of_all_training(tmp_path: Path) -> None:
    own = build(tmp_path / "own")
    mixed = build(tmp_path / "mixed", config={**FILES["config"], "precision": "bf16"})
    for read in (
        lambda catalog: catalog.pretrain_spec("small")["optimization"],
        lambda catalog: catalog.finetune_spec("small", "reviews", "random", 1),
    ):
        assert read(mixed) == {**read(own), "precision": "bf16"}
    (small,) = (one for one in mixed.report_spec(["small"])["recipes"] if one["name"] == "small")
    assert small["command"] == "snakemake --cores 2 --config precision=bf16 'recipes=[small]'"


def test_random_starts_of_a_baseline_are_shared(tmp_path: Path) -> None:
    second = {**FILES["zoo/small"], "baseline": "small"}
    catalog = build(tmp_path, **{"zoo/second": second})
    assert [run for run in catalog.runs("second") if run.start == "random"] == [
        run for run in catalog.runs("small") if run.start == "random"
    ]
    assert {run.recipe for run in catalog.runs("second") if run.start == "pretrained"} == {"second"}


def test_a_recipe_without_weights_of_its_own(catalog: Catalog) -> None:
    assert [run.start for run in catalog.runs("random")] == ["random", "random"]
    assert catalog.vocabulary_of("random") == "published"
    assert not catalog.zoo["random"].is_trained


def test_which_checkpoints_are_kept(catalog: Catalog) -> None:
    recipe = catalog.zoo["small"]
    assert (recipe.passing_steps, recipe.averaged_steps) == ([5, 10], [15, 20])


def test_equal_sense_is_equal_settings(tmp_path: Path) -> None:
    """Defaults written out, a component in its long form, text for people."""
    plain = build(tmp_path / "plain")
    recipe = {
        **FILES["zoo/small"],
        "description": "For people",
        "targets": [{"name": "lm"}],
        "optimization": {"total_steps": 20, "checkpoint_steps": 5, "seed": 7, "warmup": 0.1},
    }
    wordy = build(tmp_path / "wordy", **{"zoo/small": recipe})
    assert wordy.pretrain_spec("small") == plain.pretrain_spec("small")
    assert wordy.digest(["small"]) == plain.digest(["small"])


@pytest.mark.parametrize(
    ("name", "section", "key", "value"),
    [
        ("zoo/small", "optimization", "learning_rate", 2e-3),
        ("zoo/small", "finetune", "epochs", 6),
        ("datasets/reviews", "finetune", "learning_rate", 2e-3),
        ("instances/lines", None, "seq_length", 64),
        ("vocabularies/text", "built", "size", 99),
        ("architectures/lstm", "encoder", "hidden_size", 9),
    ],
)
def test_the_digest_sees_every_setting(
    tmp_path: Path, name: str, section: str | None, key: str, value: object
) -> None:
    before = build(tmp_path / "before").digest(["small"])
    changed = yaml.safe_load(yaml.safe_dump(FILES[name]))
    (changed[section] if section else changed).update({key: value})
    if section == "encoder":
        changed["encoder"]["name"] = "lstm"
    assert build(tmp_path / "after", **{name: changed}).digest(["small"]) != before


PROBES = {
    "words": {"probe": {"name": "neighbours", "top": 3}, "lines": ["好"]},
    "kinds": {"probe": "tags", "corpus": "text"},
}


def test_probes_receive_their_options(tmp_path: Path) -> None:
    asked = build(tmp_path, **{"zoo/small": {**FILES["zoo/small"], "probes": PROBES}})
    assert asked.probe_spec("small", "words") == {"top": 3}
    assert asked.probe_spec("small", "kinds") == {}
    assert asked.report_spec(["small"])["recipes"][0]["probes"] == ["kinds", "words"]
    assert asked.digest(["small"]) != build(tmp_path / "without").digest(["small"])


def test_the_report_receives_published_ratios_once(tmp_path: Path) -> None:
    faster = {"than": "lstm", "times": 12.0, "source": "updates"}
    recipe = {**FILES["zoo/small"], "faster": faster}
    catalog = build(tmp_path, **{"zoo/small": recipe, "zoo/other": recipe})
    assert catalog.report_spec(["small", "other"])["ratios"] == [{"model": "lstm", **faster}]
    assert catalog.report_spec([])["ratios"] == []
    assert catalog.report_spec(["small"])["recipes"][0]["architecture"] == "lstm"


def test_the_report_receives_every_run(catalog: Catalog) -> None:
    spec = catalog.report_spec(["small"])
    assert spec["recipes"][0]["scores"] == [
        {"dataset": "reviews", "starts": ["pretrained", "random"], "seeds": [1, 2]}
    ]
    assert spec["recipes"][0]["steps"] == [5, 10, 15, 20]


def test_what_the_shipped_recipes_resolve_to_is_what_stages_accept() -> None:
    catalog = load_catalog(ROOT / "config")
    for name, recipe in catalog.zoo.items():
        validate(VocabSpec, catalog.vocab_spec(catalog.vocabulary_of(name)), name)
        if recipe.instances:
            validate(InstancesSpec, catalog.instances_spec(recipe.instances), name)
            validate(PretrainSpec, catalog.pretrain_spec(name), name)
        for run in catalog.runs(name):
            validate(FinetuneSpec, catalog.finetune_spec(*run), name)
