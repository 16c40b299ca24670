"""The zoo: each published row has its recipe, its figures and a twin; each recipe can be built."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.catalog import Catalog
from pipeline.config import load_catalog
from pipeline.sources import PARTS, CorpusSpec, DatasetSpec, Source

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PUBLISHED = json.loads((ROOT / "tests/golden/published.json").read_text("utf-8"))
CITATION = "UER-py 2020: "

Figure = tuple[str, str, str, str, str, str, float]  # table, recipe, data set, metric, part ...


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(ROOT / "config", {"mirror": "nowhere"})


def printed_figures() -> Iterator[Figure]:
    """Yield the figures of the published tables that a recipe must state."""
    for table, rows in PUBLISHED["tables"].items():
        for row in rows:
            for column, value in row["figures"].items() if row["recipe"] else ():
                dataset, metric, *part = PUBLISHED["columns"][column]
                short = PUBLISHED["short names"].get(column, "")
                recipe = row["recipe"].replace("*", short)
                start = row.get("start", "pretrained")
                yield table, recipe, dataset, metric, (*part, "test")[0], start, value


def stated_figures(catalog: Catalog) -> Iterator[Figure]:
    """Yield the figures that recipes state, one for each table that is cited."""
    for name, recipe in catalog.zoo.items():
        for figure in recipe.published:
            assert figure.source.startswith(CITATION), name
            for table in figure.source.removeprefix(CITATION).split(", "):
                about = (figure.dataset, figure.metric, figure.part, figure.start)
                yield table, name, *about, figure.value


def test_recipes_state_exactly_the_published_figures(catalog: Catalog):
    printed, stated = sorted(printed_figures()), sorted(stated_figures(catalog))
    assert [figure for figure in printed if figure not in stated] == []
    assert [figure for figure in stated if figure not in printed] == []
    assert len(stated) == len(set(stated)) == len(printed)


def test_figures_belong_to_runs(catalog: Catalog):
    """What is published is also measured: the recipe is fine-tuned on that set, from that start."""
    for _, recipe, dataset, _, _, start, _ in stated_figures(catalog):
        runs = {(run.dataset, run.start) for run in catalog.runs(recipe)}
        assert (dataset, start) in runs, (recipe, dataset, start)


def test_printed_gains_are_differences_of_figures(catalog: Catalog):
    for row in (row for rows in PUBLISHED["tables"].values() for row in rows if "gains" in row):
        for column, gain in row["gains"].items():
            dataset = PUBLISHED["columns"][column][0]
            values = [
                next(f.value for f in catalog.zoo[name].published if f.dataset == dataset)
                for name in (row["recipe"], row["over"])
            ]
            assert round(values[0] - values[1], 2) == gain


@pytest.mark.parametrize("row", PUBLISHED["zoo"], ids=lambda row: row["recipe"])
def test_rows_of_the_model_zoo(catalog: Catalog, row: dict[str, Any]):
    name = row["recipe"]
    recipe = catalog.zoo[name]
    encoder = catalog.architectures[recipe.architecture].encoder.section()
    assert [encoder["name"], encoder["num_layers"], encoder["hidden_size"]] == row["encoder"]
    if "targets" in row:
        assert [target.name for target in recipe.targets or []] == row["targets"]
    if "steps" in row:
        assert recipe.optimization and recipe.optimization.total_steps == row["steps"]
    if "length" in row:
        assert (
            catalog.instances_spec(recipe.instances or "").get("seq_length", 128) == row["length"]
        )
    if "initial" in row:
        assert recipe.initial == row["initial"]
    tokenizer = catalog.vocabularies[catalog.vocabulary_of(name)].tokenizer
    assert tokenizer == row.get("tokenizer", "bert")
    assert recipe.is_trained or recipe.imported


def test_task_corpus_models(catalog: Catalog):
    stage = PUBLISHED["task corpus models"]
    names = {name for name in catalog.zoo if name.startswith("semi_") and "_mini" not in name}
    assert names == set(stage["lengths"])
    for name, length in stage["lengths"].items():
        recipe = catalog.zoo[name]
        assert recipe.initial == stage["initial"]
        assert recipe.optimization and recipe.instances
        assert recipe.optimization.total_steps == stage["steps"]
        assert recipe.optimization.batch_size == stage["batch_size"]
        assert recipe.optimization.learning_rate == stage["learning_rate"]
        assert catalog.instances_spec(recipe.instances).get("seq_length", 128) == length


@pytest.mark.parametrize(
    "row", PUBLISHED["fine-tuning"], ids=lambda row: f"{row['recipe']}-{row['dataset']}"
)
def test_published_fine_tuning(catalog: Catalog, row: dict[str, Any]):
    spec = catalog.finetune_spec(row["recipe"], row["dataset"], "pretrained", 7)
    defaults = {"epochs": 3, "batch_size": 64, "learning_rate": 2e-5, "pooling": "first"}
    stated = {"seq_length": 128, **defaults, **spec}
    assert spec["task"].get("stride") == row.get("stride")
    for key, value in row.items():
        if key not in {"recipe", "dataset", "stride"}:
            assert stated[key] == value, key


def test_published_speed(catalog: Catalog):
    """1 M steps of 128,000 tokens on 24 GPUs: about 18 days, as published."""
    stated = [row.tokens_per_second for row in catalog.zoo["google_zh_bert"].speed]
    assert stated == [row["tokens_per_second"] for row in PUBLISHED["speed"]]
    fastest = PUBLISHED["speed"][-1]
    assert fastest["machines"] * fastest["gpus"] == 24
    assert 1.28e11 / fastest["tokens_per_second"] / 86_400 == pytest.approx(17.6, abs=0.05)


def test_published_ratios_of_speed(catalog: Catalog):
    stated = {
        (recipe.architecture, recipe.faster.than): recipe.faster.times
        for recipe in catalog.zoo.values()
        if recipe.faster
    }
    rows = PUBLISHED["speed ratios"]
    assert stated == {(row["model"], row["than"]): row["times"] for row in rows}


def test_published_questions(catalog: Catalog):
    """The words of the published tables of neighbours, by themselves and in sentences."""
    for name, row in PUBLISHED["neighbours"].items():
        probes = catalog.zoo[name].probes.values()
        lines = [line for section in probes for line in section.lines]
        assert [line for line in lines if "\t" not in line] == row["words"]
        asked = [line.split("\t")[1] for line in lines if "\t" in line]
        assert asked == row["in sentences"]


def out_of_reach(catalog: Catalog) -> list[str]:
    """Return the recipes that need what only a user can supply."""
    return [name for name in catalog.zoo if catalog.needs(name)]


def test_every_row_out_of_reach_has_a_twin_of_its_shape(catalog: Catalog):
    twins = {
        row: name
        for name, recipe in catalog.zoo.items()
        for row in recipe.twin_of
        if name.endswith("_mini")
    }
    assert set(out_of_reach(catalog)) == set(twins)
    for row, twin in twins.items():
        for theirs, ours in zip(catalog.chain(row), catalog.chain(twin), strict=True):
            assert shape(catalog, ours) == shape(catalog, theirs) or catalog.zoo[theirs].imported


def shape(catalog: Catalog, name: str) -> tuple[Any, ...]:
    """Return what a recipe and its twin share: targets, layout of the text, encoder, tokenizer."""
    recipe = catalog.zoo[name]
    encoder = catalog.architectures[recipe.architecture].encoder.section()
    kind = catalog.instances[recipe.instances].kind if recipe.instances else None
    targets = [target.name for target in recipe.targets or []]
    tokenizer = catalog.vocabularies[catalog.vocabulary_of(name)].tokenizer
    return targets, kind, encoder["name"], encoder.get("mask", "full"), tokenizer


def files_of(section: CorpusSpec | DatasetSpec) -> list[Source]:
    """Return the files of which a corpus or data set is made."""
    if isinstance(section, CorpusSpec):
        return [source for source in section.sources if not source.dataset]
    parts = [getattr(section.files, part) for part in PARTS] if section.files else []
    return [source for source in parts if source] + (section.split.sources if section.split else [])


def sources_of(catalog: Catalog, name: str) -> Iterator[Source]:
    """Yield the files of which a recipe, and what it starts from, is made and scored."""
    corpora: set[str] = set()
    datasets = set(catalog.datasets_of(name))
    for part in catalog.chain(name):
        section = catalog.zoo[part]
        vocabulary = catalog.vocabularies[catalog.vocabulary_of(part)]
        corpora |= {*(vocabulary.built.corpora if vocabulary.built else [])}
        corpora |= {*(catalog.instances[section.instances].corpora if section.instances else [])}
        yield from [vocabulary.imported] if vocabulary.imported else []
    for corpus in corpora:
        datasets |= {source.dataset for source in catalog.corpora[corpus].sources if source.dataset}
        yield from files_of(catalog.corpora[corpus])
    for dataset in datasets:
        yield from files_of(catalog.datasets[dataset])


def test_twins_need_neither_mirror_nor_network(catalog: Catalog):
    elsewhere = {
        name
        for name in catalog.zoo
        if name.endswith("_mini")
        and any(source.package is None for source in sources_of(catalog, name))
    }
    assert elsewhere == {"xnli_bert_cls_mini"}  # pairs come from OCNLI


def test_twins_are_tiny(catalog: Catalog):
    for name, recipe in catalog.zoo.items():
        if name.endswith("_mini"):
            assert recipe.optimization and recipe.optimization.total_steps <= 40, name
            assert len(catalog.runs(name)) <= 2, name


def test_files_are_pinned_or_explained(catalog: Catalog):
    """A file without a digest belongs to a set that says what the user must supply."""
    for name, section in [*catalog.corpora.items(), *catalog.datasets.items()]:
        sources = files_of(section)
        assert section.needs or all(source.sha256 for source in sources), name
        assert not any((source.path or "").startswith(("/", "..")) for source in sources), name
    for name, recipe in catalog.zoo.items():
        assert bool(recipe.imported) == bool(recipe.needs), name


def test_every_recipe_passes_check(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.chdir(ROOT)
    names = sorted(path.stem for path in Path("config/zoo").glob("*.yaml"))
    assert main(["check", *names]) == 0, capsys.readouterr().err
    assert len(re.findall("fine$", capsys.readouterr().err, re.MULTILINE)) == len(names)


def dry_run(folder: Path, target: str, **settings: str) -> str:
    """Return what `snakemake -n` says of a target in a folder with this repository's settings."""
    (folder / "config").symlink_to(ROOT / "config")
    given = [f"{key}={value}" for key, value in settings.items()]
    done = subprocess.run(
        [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "-n", target]
        + (["--config", *given] if given else []),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def listed(said: str) -> tuple[set[str], set[str]]:
    """Return the recipes that have jobs, and those of which is said what they need."""
    message = said.partition(" left out:\n")[2].partition("\nReason:")[0]
    jobs = set(re.findall(r"wildcards: recipe=([^,\n]+)", said))
    return jobs, set(re.findall(r"^ +(\w+) needs ", message, re.MULTILINE))


def test_zoo_lists_every_row(tmp_path: Path, catalog: Catalog):
    jobs, lacking = listed(dry_run(tmp_path, "zoo"))
    assert jobs | lacking == set(catalog.zoo)
    assert not jobs & lacking
    assert set(out_of_reach(catalog)) <= lacking


def test_rows_run_once_their_files_are_there(tmp_path: Path, catalog: Catalog):
    supplied = ["corpora/wiki_zh_words.txt", "corpora/weibo.txt", "models/bert-base-chinese/x"]
    for name in supplied:
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    said = dry_run(tmp_path, "zoo", mirror="mirror")
    jobs, lacking = listed(said)
    assert {"wiki_word_bert", "weibo_bert", "google_zh_bert", "semi_douban_bert"} <= jobs
    assert {"people_daily_bert", "mixed_lstm"} <= lacking
    assert "data set tencentnews_review needs tencentnews_review/" in said
    assert jobs | lacking == set(catalog.zoo)


def test_zoo_mini_lists_the_twins(tmp_path: Path, catalog: Catalog):
    jobs, lacking = listed(dry_run(tmp_path, "zoo_mini"))
    twins = {name for name in catalog.zoo if name.endswith("_mini")}
    assert (jobs, lacking) == (twins - {"xnli_bert_cls_mini"}, {"xnli_bert_cls_mini"})
