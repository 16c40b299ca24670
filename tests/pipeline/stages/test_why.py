"""`why` through the command line: what made a file, and what would make it stale."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.artifacts import make_stamp, write_json, write_text
from pipeline.config import load_catalog
from tests.pipeline.report.zoo import DATASET, Zoo

SECTIONS: dict[str, dict[str, Any]] = {
    "config": {"recipes": ["tiny"], "datasets": [DATASET]},
    "corpora/reviews": {"sources": [{"dataset": DATASET, "part": "train"}]},
    f"datasets/{DATASET}": {
        "task": "classify",
        "split": {
            "sources": [{"path": "1.txt", "label": 1}, {"path": "0.txt", "label": 0}],
            "shares": {"train": 0.6, "dev": 0.2, "test": 0.2},
        },
    },
    "vocabularies/reviews": {"built": {"corpora": ["reviews"], "size": 60}},
    "instances/reviews_lines": {
        "kind": "lines",
        "corpora": ["reviews"],
        "vocabulary": "reviews",
        "seq_length": 32,
        "shards": 2,
        "held_out": 0.1,
    },
    "architectures/lstm": {
        "embedding": "word",
        "encoder": {"name": "lstm", "hidden_size": 8, "num_layers": 1},
    },
    "zoo/tiny": {
        "instances": "reviews_lines",
        "architecture": "lstm",
        "targets": ["lm"],
        "optimization": {
            "total_steps": 2,
            "checkpoint_steps": 1,
            "batch_size": 4,
            "micro_batches": 2,
        },
        "average": {"last": 2},
        "finetune": {"pooling": "mean", "epochs": 1},
        "probes": {"words": {"probe": {"name": "neighbours", "top": 2}, "lines": ["这", "个"]}},
    },
}
MANIFEST = "results/2_instances/reviews_lines/manifest.json"
STEP = "results/3_pretrain/tiny/step_00000002"
SCORES = f"results/6_evaluate/tiny/{DATASET}/pretrained_seed_7.json"
AVERAGE = "results/4_average/tiny.safetensors"
PROBE = "results/6_probe/tiny/words"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A zoo whose text and models are made by the real stages from the settings above."""
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    zoo.text()
    recipe = SECTIONS["zoo/tiny"]
    spec = {
        "architecture": SECTIONS["architectures/lstm"],
        "targets": recipe["targets"],
        "optimization": recipe["optimization"],
    }
    vocabulary = zoo.results / "1_vocab/reviews.txt"
    folder = zoo.folder / Path(STEP).parent
    instances = zoo.folder / Path(MANIFEST).parent
    inputs = ["--instances", instances, "--vocab", vocabulary, "--state", zoo.folder / "state"]
    zoo.stage("pretrain", spec, *inputs, "--out", folder, "--log", zoo.results / "logs")
    models = sorted(path for path in folder.glob("step_*.safetensors") if "optim" not in path.name)
    out = ["--out", str(zoo.folder / AVERAGE)]
    assert main(["average", "--models", *map(str, models), *out]) == 0
    data = zoo.folder / "data/datasets" / DATASET
    rows = ["--train", data / "train.tsv", "--dev", data / "dev.tsv", "--vocab", vocabulary]
    model = zoo.results / f"5_finetune/tiny/{DATASET}/pretrained_seed_7.safetensors"
    more = ["--init", zoo.folder / AVERAGE, "--log", zoo.results / "logs/f"]
    zoo.stage(
        "finetune",
        {"task": "classify", "seed": 7, **SECTIONS["zoo/tiny"]["finetune"]},
        *rows,
        *more,
        "--out",
        model,
    )
    opened = ["--model", zoo.folder / AVERAGE, "--vocab", vocabulary]
    probed = ["--out", zoo.folder / f"{PROBE}.jsonl", "--books", zoo.folder / f"{PROBE}.json"]
    asked = [*opened, "--line=这", "--line=个", *probed]
    assert main(["probe", "neighbours", "--spec", '{"top": 2}', *map(str, asked)]) == 0
    _score(zoo, model, data / "test.tsv", vocabulary)
    return zoo


def _score(zoo: Zoo, model: Path, rows: Path, vocabulary: Path) -> None:
    """Evaluate as the rule does, check the recipe and write the report."""
    metrics = zoo.folder / SCORES
    corpus = zoo.folder / "data/corpora/reviews.txt"
    inputs = ["--model", model, "--vocab", vocabulary, "--data", rows, "--corpus", corpus]
    predictions = ["--predictions", metrics.with_suffix(".predictions.tsv")]
    zoo.stage("evaluate", {}, *inputs, "--out", metrics, *predictions)
    configure(zoo)
    config = zoo.folder / "config"
    check = zoo.results / "0_check/all.json"
    assert main(["check", "tiny", "--config", str(config), "--out", str(check)]) == 0
    spec = load_catalog(config).report_spec(["tiny"])
    page = zoo.results / "7_report/report.html"
    out = ["--results", zoo.results, "--data", zoo.folder / "data", "--out", page]
    zoo.stage("report", spec, *out, "--json", page.with_suffix(".json"))
    shutil.rmtree(config)


@pytest.fixture
def zoo(finished: Zoo, tmp_path: Path) -> Zoo:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    return Zoo(tmp_path / "zoo")


def configure(zoo: Zoo, **changes: Any) -> None:
    """Write config/, with changes of sections by a path such as `zoo/tiny`."""
    for name, section in {**SECTIONS, **changes}.items():
        write_text(zoo.folder / f"config/{'config' if name == 'config' else name}.yaml",
                   yaml.safe_dump(json.loads(json.dumps(section)), sort_keys=False))  # fmt: skip


def why(zoo: Zoo, place: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines about a file, the zoo's folder left out of them."""
    capsys.readouterr()
    folders = [f"--{name}={zoo.folder / name}" for name in ("results", "data", "config")]
    assert main(["why", str(zoo.folder / place), *folders]) == 0
    return capsys.readouterr().out.replace(f"{zoo.folder}/", "").splitlines()


def changed(name: str, **fields: Any) -> dict[str, Any]:
    """Return a section of config/ with other fields."""
    return {name: {**SECTIONS[name], **fields}}


def test_maker_settings_and_inputs(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    configure(zoo)
    lines = why(zoo, f"{STEP}.safetensors", capsys)
    assert lines[0].startswith(f"{STEP}.safetensors: made by pretrain (pretrain-zoo ")
    settings = [line.split() for line in lines]
    assert ["architecture.encoder.hidden_size", "8"] in settings
    assert ["optimization.total_steps", "2"] in settings
    inputs = [line.split() for line in lines[lines.index("from") + 1 :]]
    assert [line[::2] for line in inputs[:2]] == [
        ["instances", MANIFEST],
        ["vocabulary", "results/1_vocab/reviews.json"],
    ]


@pytest.mark.parametrize(
    "place",
    ["data/corpora/reviews.txt", f"data/datasets/{DATASET}/test.tsv", "results/1_vocab/reviews.txt",
     MANIFEST, "results/2_instances/reviews_lines/shard_00001.arrow", f"{STEP}.safetensors",
     AVERAGE, f"results/5_finetune/tiny/{DATASET}/pretrained_seed_7.safetensors", f"{PROBE}.json",
     f"{PROBE}.jsonl", SCORES, SCORES.replace(".json", ".predictions.tsv"),
     "results/0_check/all.json", "results/7_report/report.html", "results/7_report/report.json"],
)  # fmt: skip
def test_everything_is_up_to_date_under_the_settings_that_made_it(
    place: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(zoo)
    assert why(zoo, place, capsys)[-1] == "up to date: settings and inputs are what they were"


def test_a_changed_learning_rate_makes_its_descendants_stale_and_nothing_else(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {**SECTIONS["zoo/tiny"]["optimization"], "learning_rate": 0.01}
    configure(zoo, **changed("zoo/tiny", optimization=plan))
    reason = "settings.optimization.learning_rate: 0.0001 -> 0.01"
    assert why(zoo, f"{STEP}.safetensors", capsys)[-2:] == ["stale, because", f"  {reason}"]
    *_, stale, one, two = why(zoo, AVERAGE, capsys)
    assert stale == "stale, because"
    assert sorted([one, two]) == [
        f"  results/3_pretrain/tiny/step_00000001.safetensors: {reason}",
        f"  {STEP}.safetensors: {reason}",
    ]
    assert why(zoo, MANIFEST, capsys)[-1].startswith("up to date")


def test_each_kind_of_setting_is_compared(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    configure(
        zoo,
        **changed("vocabularies/reviews", built={"corpora": ["reviews"], "size": 40}),
        **changed("instances/reviews_lines", seq_length=16, long_documents="truncate"),
        **changed("zoo/tiny", average={"last": 1}, finetune={"pooling": "max", "epochs": 1}),
        **changed("corpora/reviews", duplicates="drop"),
    )
    assert "  settings.size: 60 -> 40" in why(zoo, "results/1_vocab/reviews.txt", capsys)
    lines = why(zoo, MANIFEST, capsys)
    assert "  settings.long_documents: split -> truncate" in lines
    assert "  settings.seq_length: 32 -> 16" in lines
    assert "  results/1_vocab/reviews.json: settings.size: 60 -> 40" in lines
    assert "  settings.steps: [1, 2] -> [2]" in why(zoo, AVERAGE, capsys)
    model = f"results/5_finetune/tiny/{DATASET}/pretrained_seed_7.safetensors"
    assert "  settings.pooling: mean -> max" in why(zoo, model, capsys)
    text = why(zoo, "data/corpora/reviews.txt", capsys)
    assert "  settings.duplicates: keep -> drop" in text


def test_an_input_that_was_replaced_is_named(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    configure(zoo)
    texts = zoo.folder / "data/corpora/reviews.txt"
    out = zoo.results / "1_vocab/reviews.txt"
    zoo.stage("vocab", {"size": 50}, "--corpus", texts, "--out", out)
    lines = why(zoo, MANIFEST, capsys)
    assert any(
        line.startswith("  vocabulary: was ")
        and line.endswith("results/1_vocab/reviews.json is another")
        for line in lines
    )
    assert any("vocabulary" in line and "not here; results/1_vocab" in line for line in lines)


def test_names_in_config_that_lead_elsewhere(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    """Other corpora, instances, vocabulary and start, though every old file stands as it was."""
    lines = {**SECTIONS["instances/reviews_lines"], "vocabulary": "other"}
    configure(
        zoo,
        **{"corpora/more": SECTIONS["corpora/reviews"]},
        **{"vocabularies/other": {"built": {"corpora": ["more"], "size": 50}}},
        **{"instances/more_lines": lines},
        **changed("instances/reviews_lines", corpora=["reviews", "more"]),
        **{"zoo/first": {**SECTIONS["zoo/tiny"], "instances": "more_lines"}},
        **changed("zoo/tiny", instances="more_lines", initial="first"),
    )
    texts, out = zoo.folder / "data/corpora/reviews.txt", zoo.results / "1_vocab/other.txt"
    zoo.stage("vocab", {"size": 50}, "--corpus", texts, "--out", out)
    folder = zoo.results / "2_instances/more_lines"
    spec = {"kind": "lines", "seq_length": 32, "shards": 2, "held_out": 0.1}
    zoo.stage("instances", spec, "--corpus", texts, "--vocab", out, "--out", folder)
    shutil.copy(zoo.folder / AVERAGE, zoo.results / "4_average/first.safetensors")
    assert "  corpora: reviews -> reviews, more" in why(zoo, MANIFEST, capsys)
    step = [line.replace("...", "") for line in why(zoo, f"{STEP}.json", capsys)]
    told = {line.split(":")[0].strip(): line.rpartition("config/ names ")[2] for line in step}
    assert told["vocabulary"] == "results/1_vocab/other.json now"
    assert told["instances"] == "results/2_instances/more_lines/manifest.json now"
    assert told["init"] == "results/4_average/first.safetensors now"
    scores = why(zoo, SCORES, capsys)
    assert any(line.endswith("config/ names results/1_vocab/other.json now") for line in scores)


def test_scores_of_before_the_corpora_were_looked_at(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(zoo)
    data, vocabulary = zoo.folder / f"data/datasets/{DATASET}", zoo.results / "1_vocab/reviews.txt"
    model = zoo.results / f"5_finetune/tiny/{DATASET}/pretrained_seed_7.safetensors"
    inputs = ["--model", model, "--vocab", vocabulary, "--data", data / "test.tsv"]
    zoo.stage("evaluate", {}, *inputs, "--out", zoo.folder / SCORES)
    assert why(zoo, SCORES, capsys)[-2:] == ["stale, because", "  corpora: none -> reviews"]
    lines = why(zoo, "results/7_report/report.json", capsys)
    assert any(line.endswith("no scores here are those") for line in lines)


def test_a_changed_recipe_makes_check_and_report_stale(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(zoo, **changed("zoo/tiny", description="New", finetune={"epochs": 2}))
    check = why(zoo, "results/0_check/all.json", capsys)
    assert check[-1] == "  settings: those of its recipes are others in config/ now"
    report = why(zoo, "results/7_report/report.html", capsys)
    assert "  settings.recipes.0.description:  -> New" in report
    configure(zoo, **{"zoo/other": SECTIONS["zoo/tiny"]}, config={"recipes": ["tiny", "other"]})
    check = why(zoo, "results/0_check/all.json", capsys)
    assert any(line.startswith("  settings.recipes: ") for line in check)


def test_a_resume_point_is_compared_with_its_recipe(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {**SECTIONS["zoo/tiny"]["optimization"], "learning_rate": 0.01}
    configure(zoo, **changed("zoo/tiny", optimization=plan))
    point = "state/pretrain/tiny/00000002/0123456789ab/step_00000002.safetensors"
    (zoo.folder / point).parent.mkdir(parents=True)
    shutil.copy(zoo.folder / f"{STEP}.safetensors", zoo.folder / point)
    reason = "  settings.optimization.learning_rate: 0.0001 -> 0.01"
    assert reason in why(zoo, point, capsys)


def test_a_plan_is_of_no_section(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    configure(zoo)
    write_json(zoo.results / "plan.json", {"stamp": make_stamp("plan", {}, {}), "recipes": {}})
    assert why(zoo, "results/plan.json", capsys)[-2:] == [
        "from nothing that is recorded",
        "up to date: inputs (of its settings config/ says nothing) are what they were",
    ]


def test_without_config_only_inputs_are_compared(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why(zoo, MANIFEST, capsys)[-1] == (
        "up to date: inputs (no config/ here) are what they were"
    )


def test_other_questions_make_an_answer_stale(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    section = {"probe": {"name": "neighbours", "layer": 1}, "lines": ["这"]}
    configure(zoo, **changed("zoo/tiny", probes={"words": section}))
    lines = why(zoo, f"{PROBE}.jsonl", capsys)
    assert "  settings.lines: ['这', '个'] -> ['这']" in lines
    assert "  settings.layer: last -> 1" in lines and "  settings.top: 2 -> 20" in lines


def test_another_average_makes_an_answer_stale(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(zoo)
    (zoo.folder / AVERAGE).unlink()
    shutil.copy(zoo.folder / f"{STEP}.safetensors", zoo.folder / AVERAGE)
    line = why(zoo, f"{PROBE}.json", capsys)[-1]
    assert line.startswith("  model: was ") and line.endswith(f"{AVERAGE} is another")


def test_a_recipe_that_is_in_no_config_any_more(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(zoo)
    (zoo.folder / "config/zoo/tiny.yaml").rename(zoo.folder / "config/zoo/other.yaml")
    write_text(zoo.folder / "config/config.yaml", f"recipes: [other]\ndatasets: [{DATASET}]\n")
    assert why(zoo, f"{STEP}.safetensors", capsys)[-1].startswith("up to date")


def test_a_broken_config_is_told(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    configure(zoo, **changed("zoo/tiny", targets=[]))
    folders = [f"--{name}={zoo.folder / name}" for name in ("results", "data", "config")]
    assert main(["why", str(zoo.folder / MANIFEST), *folders]) == 78
    assert "targets" in capsys.readouterr().err


def test_a_file_that_is_not_there(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    missing = zoo.folder / "results/1_vocab/other.txt"
    assert main(["why", str(missing)]) == 66
    assert capsys.readouterr().err == f"error: {missing}: no such file\n"
