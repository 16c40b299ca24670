"""The whole workflow on a tiny zoo: what is there afterwards, and what a change makes stale.

What a change re-runs is executed where it is cheap, and planned (dry run) where it is not.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact, read_tensor_stamp
from tests.workflow.zoo import ROOT, TINY, Zoo

EVERYTHING = {
    "all": 1,
    "average": 1,
    "check": 1,
    "evaluate": 2,
    "fetch": 1,
    "fetch_dataset": 1,
    "finetune": 2,
    "instances": 2,
    "instances_join": 1,
    "pretrain": 1,
    "pretrain_passing": 1,
    "probe": 1,
    "report": 1,
    "vocab": 1,
}


@pytest.fixture
def copy(finished_zoo: Zoo, tmp_path: Path) -> Zoo:
    """Return a finished zoo that a test may change."""
    shutil.copytree(finished_zoo.folder, tmp_path / "a zoo", symlinks=True)
    return Zoo.at(tmp_path / "a zoo")


def test_everything_is_planned_at_first(zoo: Zoo) -> None:
    assert zoo.planned() == EVERYTHING


def test_the_run_leaves_what_it_promises(finished_zoo: Zoo) -> None:
    results = finished_zoo.folder / "results"
    found = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    found = {name for name in found if name[0].isdigit()}
    folder = "tiny_lstm/reviews"
    assert found == {
        "0_check/all.json",
        "1_vocab/reviews.json",
        "1_vocab/reviews.txt",
        *(
            f"2_instances/lines/{kind}_0000{n}.arrow"
            for kind in ("shard", "held_out")
            for n in (0, 1)
        ),
        *(f"2_instances/lines/shard_0000{n}.json" for n in (0, 1)),
        "2_instances/lines/manifest.json",
        "3_pretrain/tiny_lstm/step_00000003.json",
        "3_pretrain/tiny_lstm/step_00000006.json",
        "3_pretrain/tiny_lstm/step_00000006.safetensors",
        "4_average/tiny_lstm.safetensors",
        *(f"5_finetune/{folder}/{start}_seed_7.safetensors" for start in ("pretrained", "random")),
        *(f"6_evaluate/{folder}/{start}_seed_7.json" for start in ("pretrained", "random")),
        *(
            f"6_evaluate/{folder}/{start}_seed_7.predictions.tsv"
            for start in ("pretrained", "random")
        ),
        "6_probe/tiny_lstm/words.json",
        "6_probe/tiny_lstm/words.jsonl",
        "7_report/report.html",
        "7_report/report.json",
        "7_report/report.md",
    }


def test_the_books_balance_from_source_to_shards(finished_zoo: Zoo) -> None:
    ledger = read_json_artifact(finished_zoo.folder / "results/2_instances/lines/manifest.json")[
        "ledger"
    ]
    left = ledger["documents_out"] + ledger["held_out"] + sum(ledger["dropped"].values())
    assert ledger["documents_in"] == left > 0


def test_the_second_run_does_nothing(finished_zoo: Zoo) -> None:
    assert "Nothing to be done" in finished_zoo.snakemake()


def test_a_comment_makes_nothing_stale(copy: Zoo) -> None:
    for path in sorted((copy.folder / "config").rglob("*.yaml")):
        path.write_text(f"# a comment\n{path.read_text()}")
    assert copy.planned() == {}


def test_a_default_written_out_makes_nothing_stale(copy: Zoo) -> None:
    copy.change("zoo/tiny_lstm", "optimization.warmup", 0.1)
    copy.change("datasets/reviews", "finetune.starts", ["pretrained", "random"])
    copy.change("zoo/tiny_lstm", "description", "For people")
    assert copy.planned() == {"report": 1, "all": 1}


def test_more_ranks_make_nothing_stale(finished_zoo: Zoo) -> None:
    assert finished_zoo.planned("--config", "ranks=4") == {}
    assert finished_zoo.planned("--config", "ranks=2", "nodes=2") == {}
    assert finished_zoo.planned("--default-resources", "runtime=30") == {}


def test_a_learning_rate_re_runs_its_descendants_at_once(copy: Zoo) -> None:
    """Of fine-tuning: both starts, their scores, check and report; and then nothing."""
    copy.change("datasets/reviews", "finetune.learning_rate", 2e-3)
    assert copy.run() == {"check": 1, "finetune": 2, "evaluate": 2, "report": 1, "all": 1}
    assert "Nothing to be done" in copy.snakemake("--dry-run")


def test_a_rate_of_pre_training_re_runs_its_descendants(copy: Zoo) -> None:
    copy.change("zoo/tiny_lstm", "optimization.learning_rate", 2e-2)
    assert copy.planned() == {
        "check": 1, "pretrain_passing": 1, "pretrain": 1, "average": 1, "finetune": 1,
        "evaluate": 1, "probe": 1, "report": 1, "all": 1,
    }  # fmt: skip


def test_a_baseline_lends_its_random_starts(copy: Zoo) -> None:
    copy.write("zoo/other_lstm", {**TINY["zoo/tiny_lstm"], "baseline": "tiny_lstm", "probes": {}})
    copy.change("config", "recipes", ["tiny_lstm", "other_lstm"])
    copy.run()
    finetuned = copy.folder / "results/5_finetune/other_lstm/reviews"
    models = [path.name for path in finetuned.glob("*.safetensors")]
    assert models == ["pretrained_seed_7.safetensors"]
    figures = read_json_artifact(copy.folder / "results/7_report/report.json")
    means = [row["random"]["mean"] for row in figures["headline"][0]["rows"]]
    assert len(means) == 2 and means[0] == means[1]
    page = (copy.folder / "results/7_report/report.html").read_text(encoding="utf-8")
    assert "The random starts of other_lstm are those of tiny_lstm." in page


def test_another_question_re_runs_its_probe_alone(copy: Zoo) -> None:
    copy.change("zoo/tiny_lstm", "probes.words.lines", ["好"])
    assert copy.planned() == {"check": 1, "probe": 1, "report": 1, "all": 1}


def test_questions_are_text_to_the_shell(copy: Zoo) -> None:
    """What a shell would run is a word that is no token, whatever quotes it has."""
    copy.change("zoo/tiny_lstm", "probes.words.lines", ["-$(touch canary)';touch canary;'"])
    assert "Error in rule probe" in copy.snakemake(check=False)
    assert "--line:1: '-$(touch canary)';touch can...' is not one token" in copy.logs()
    assert not list(copy.folder.rglob("canary")) and not list(copy.folder.rglob("words.json*"))


def test_a_recipe_added_re_runs_nothing_of_the_others(copy: Zoo) -> None:
    copy.write("zoo/second", TINY["zoo/tiny_lstm"])
    copy.change("config", "recipes", ["tiny_lstm", "second"])
    assert copy.planned() == {
        "check": 1, "pretrain_passing": 1, "pretrain": 1, "average": 1, "finetune": 2,
        "evaluate": 2, "probe": 1, "report": 1, "all": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "jobs"),
    [
        ("vocab", {"vocab": 1, "instances": 2, "instances_join": 1}),
        ("average", {"average": 1, "finetune": 1, "evaluate": 1, "probe": 1}),
        ("probe", {"probe": 1, "report": 1}),
        ("evaluate", {"evaluate": 2}),
        ("report", {"report": 1}),
    ],
)
def test_a_stage_is_re_run_by_name(finished_zoo: Zoo, rule: str, jobs: dict[str, int]) -> None:
    planned = finished_zoo.planned("--forcerun", rule)
    assert jobs.items() <= planned.items()
    assert "fetch" not in planned


def test_a_stage_runs_by_hand_with_the_same_line(finished_zoo: Zoo, tmp_path: Path) -> None:
    """The command that --printshellcmds shows, with another --out, makes the same bytes."""
    model = "results/5_finetune/tiny_lstm/reviews/pretrained_seed_7.safetensors"
    shown = finished_zoo.snakemake("--dry-run", "--printshellcmds", "--force", model)
    line = next(line for line in shown.splitlines() if "pipeline finetune" in line)
    line = line.partition("exec ")[2]
    target = tmp_path / "by_hand.safetensors"
    line = line.replace(f"--out {model}", f"--out {target}").replace("state/", f"{tmp_path}/state/")
    line = line.replace("results/logs", f"{tmp_path}/logs").partition(" >")[0]
    environment = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run(["bash", "-c", line], cwd=finished_zoo.folder, env=environment, check=True)
    assert target.read_bytes() == (finished_zoo.folder / model).read_bytes()


def test_a_longer_schedule_starts_anew(copy: Zoo) -> None:
    """The optimizer's files are gone, and another total changes every step's rate."""
    copy.change("zoo/tiny_lstm", "optimization.total_steps", 9)
    planned = copy.planned()
    assert (planned["pretrain_passing"], planned["pretrain"]) == (2, 1)


def test_snakemakes_own_report(finished_zoo: Zoo, tmp_path: Path) -> None:
    finished_zoo.snakemake("--report", str(tmp_path / "snakemake.html"))
    text = (tmp_path / "snakemake.html").read_text(encoding="utf-8")
    assert "report.html" in text and "finetune" in text


def test_checked_recipes_are_written_down(finished_zoo: Zoo) -> None:
    record = read_json_artifact(finished_zoo.folder / "results/0_check/all.json", "check")
    assert record["recipes"]["tiny_lstm"]["parameters"] > 0
    assert json.dumps(record["recipes"]["tiny_lstm"]["pretrain"]["targets"]) == '[{"name": "lm"}]'


def test_answers_are_of_the_average(finished_zoo: Zoo) -> None:
    folder = finished_zoo.folder / "results"
    record = read_json_artifact(folder / "6_probe/tiny_lstm/words.json", "probe")
    mean = read_tensor_stamp(folder / "4_average/tiny_lstm.safetensors")
    assert record["stamp"]["inputs"]["model"] == mean["weights"]
    rows = (folder / "6_probe/tiny_lstm/words.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["word"] for row in rows] == ["好", "不"]
    assert all(len(json.loads(row)["neighbours"]) == 3 for row in rows)
    page = (folder / "7_report/report.html").read_text("utf-8")
    assert "Inside the models" in page and '<strong lang="zh">好</strong>' in page


def test_fine_tuning_starts_from_the_average(finished_zoo: Zoo) -> None:
    folder = finished_zoo.folder / "results"
    tuned = read_tensor_stamp(folder / "5_finetune/tiny_lstm/reviews/pretrained_seed_7.safetensors")
    mean = read_tensor_stamp(folder / "4_average/tiny_lstm.safetensors")
    assert tuned["stamp"]["inputs"]["init"] == mean["weights"]


def test_every_file_can_be_asked_why_it_is(
    finished_zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logs and benchmarks too; after a run everything is up to date, and whole."""
    monkeypatch.chdir(finished_zoo.folder)
    files = [path for path in sorted(Path("results").rglob("*")) if path.is_file()]
    assert {"benchmarks", "logs", "1_vocab", "7_report"} <= {path.parts[1] for path in files}
    for path in files:
        capsys.readouterr()
        assert main(["why", str(path)]) == 0, path
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == "up to date: settings and inputs are what they were", path
        assert main(["lineage", str(path)]) == 0, path
    assert main(["verify", "results", "data"]) == 0


def test_scores_tell_of_rows_in_the_corpora_of_pre_training(finished_zoo: Zoo) -> None:
    folder = finished_zoo.folder / "results/6_evaluate/tiny_lstm/reviews"
    random, pretrained = (
        read_json_artifact(folder / f"{start}_seed_7.json") for start in ("random", "pretrained")
    )
    assert "in_corpus" not in random
    # The corpus is the training part, from which repeats of test rows were dropped.
    assert pretrained["in_corpus"]["repeats"] == pretrained["in_either"]["repeats"] == 0
    assert pretrained["in_corpus"]["metrics"] == pretrained["metrics"]
    assert "corpus reviews" in pretrained["stamp"]["inputs"]
