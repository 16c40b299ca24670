"""`lineage` through the command line: the way back to the text."""

import shutil
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import digest_file, read_json_artifact
from tests.pipeline.report.zoo import DATASET, Zoo


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo")).build()


def lineage(zoo: Zoo, place: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines about a file, without guides, digests and folders."""
    capsys.readouterr()
    folders = ["--results", str(zoo.results), "--data", str(zoo.folder / "data")]
    assert main(["lineage", str(zoo.folder / place), *folders]) == 0
    lines = capsys.readouterr().out.replace(f"{zoo.folder}/", "").splitlines()
    return [line.rstrip() for line in lines]


def test_a_score_goes_back_to_the_sources(
    finished: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"reviews_lstm/{DATASET}/pretrained_seed_7"
    lines = lineage(finished, f"results/6_evaluate/{run}.json", capsys)
    assert lines[0].endswith(f"results/6_evaluate/{run}.json, made by evaluate")
    told = "\n".join(lines)
    for made in (
        f"results/5_finetune/{run}.safetensors, made by finetune",
        "results/4_average/reviews_lstm.safetensors, made by average",
        "results/3_pretrain/reviews_lstm/step_00002000.safetensors, made by pretrain",
        "results/2_instances/reviews_lines/manifest.json, made by instances",
        "results/1_vocab/reviews.json, made by vocab",
        "data/corpora/reviews.ledger.json, made by fetch",
        f"data/datasets/{DATASET}/ledger.json, made by fetch",
    ):
        assert made in told
    assert sum("1.txt" in line and line.endswith("not here") for line in lines) == 1
    assert any(line.endswith("manifest.json, made by instances, see above") for line in lines)


def test_an_answer_goes_back_to_the_text(finished: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    told = "\n".join(lineage(finished, "results/6_probe/reviews_lstm/texts.json", capsys))
    for made in (
        "results/4_average/reviews_lstm.safetensors, made by average",
        "results/1_vocab/reviews.json, made by vocab",
        "data/corpora/reviews.ledger.json, made by fetch",
    ):
        assert made in told


def test_a_random_start_has_no_pretraining(
    finished: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"reviews_lstm/{DATASET}/random_seed_7"
    told = "\n".join(lineage(finished, f"results/5_finetune/{run}.safetensors", capsys))
    assert "init" not in told and "3_pretrain" not in told


@pytest.mark.parametrize(
    ("place", "record"),
    [
        ("results/1_vocab/reviews.txt", "results/1_vocab/reviews.json"),
        ("results/2_instances/reviews_lines/held_out_00001.arrow",
         "results/2_instances/reviews_lines/shard_00001.json"),
        ("results/2_instances/reviews_lines", "results/2_instances/reviews_lines/manifest.json"),
        ("results/6_probe/reviews_lstm/texts.jsonl", "results/6_probe/reviews_lstm/texts.json"),
        (f"results/6_evaluate/reviews_lstm/{DATASET}/random_seed_7.predictions.tsv",
         f"results/6_evaluate/reviews_lstm/{DATASET}/random_seed_7.json"),
        ("data/corpora/reviews.txt", "data/corpora/reviews.ledger.json"),
        (f"data/datasets/{DATASET}/dev.tsv", f"data/datasets/{DATASET}/ledger.json"),
    ],
)  # fmt: skip
def test_files_without_a_stamp_are_told_by_their_record(
    place: str, record: str, finished: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    note, root, *_ = lineage(finished, place, capsys)
    assert note == f"{place}: {record} tells of it"
    assert f" {record}, made by " in root


@pytest.mark.parametrize(
    ("place", "made"),
    [
        ("benchmarks/pretrain/reviews_lstm/step_00001000.tsv",
         "3_pretrain/reviews_lstm/step_00001000.json"),
        ("logs/pretrain/reviews_lstm/metrics.jsonl", "3_pretrain/reviews_lstm/step_00002000.json"),
        (f"benchmarks/finetune/reviews_lstm/{DATASET}/random_seed_7.tsv",
         f"5_finetune/reviews_lstm/{DATASET}/random_seed_7.safetensors"),
    ],
)  # fmt: skip
def test_facts_of_a_run_are_told_by_what_it_made(
    place: str, made: str, finished: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    note, root, *_ = lineage(finished, f"results/{place}", capsys)
    told = f"facts of the run that made results/{made}; nothing makes them stale"
    assert note == f"results/{place}: {told}"
    assert f" results/{made}, made by " in root


def test_a_report_goes_back_to_the_scores(finished: Zoo, tmp_path: Path, capsys) -> None:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    page = zoo.results / "7_report/report"
    out = ["--out", f"{page}.html", "--json", f"{page}.json", "--markdown", f"{page}.md"]
    assert main(["report", "--results", str(zoo.results), *out]) == 0
    for form in ("html", "md"):
        lines = lineage(zoo, f"results/7_report/report.{form}", capsys)
        assert lines[0].endswith("results/7_report/report.json tells of it")
        run = f"results/6_evaluate/reviews_lstm/{DATASET}/pretrained_seed_7.json, made by evaluate"
        assert any(line.endswith(run) for line in lines)


def test_inputs_are_found_by_digest_whatever_they_are_called(
    finished: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    (zoo.results / "3_pretrain").rename(zoo.results / "moved")
    told = "\n".join(lineage(zoo, "results/4_average/reviews_lstm.safetensors", capsys))
    assert "models " in told and "results/moved/reviews_lstm/step_00001000.safetensors" in told


def test_a_file_that_is_gone_or_replaced_is_said_to_be_so(
    finished: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    shutil.rmtree(zoo.results / "3_pretrain")
    average = zoo.results / "4_average/reviews_lstm.safetensors"
    lines = lineage(zoo, "results/4_average/reviews_lstm.safetensors", capsys)
    assert len(lines) == 4 and all(line.endswith(" not here") for line in lines[1:])
    average.unlink()
    shutil.copy(zoo.results / "4_average/reviews_bert_tiny.safetensors", average)
    run = f"results/5_finetune/reviews_lstm/{DATASET}/pretrained_seed_7.safetensors"
    told = "\n".join(lineage(zoo, run, capsys))
    assert "not here; results/4_average/reviews_lstm.safetensors is another" in told


def test_files_without_any_record(
    finished: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stray = tmp_path / "notes.txt"
    assert main(["lineage", str(stray), "--results", str(finished.results)]) == 66
    assert capsys.readouterr().err == f"error: {stray}: no such file\n"
    stray.write_text("x")
    assert main(["lineage", str(stray), "--results", str(finished.results)]) == 66
    assert capsys.readouterr().err == (
        f"error: {stray}: no record of its making in it or beside it\n"
    )


def test_folders_logs_of_failed_jobs_and_damaged_records(
    finished: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    failed = zoo.results / "logs/finetune/reviews_lstm/other/random_seed_7.log"
    failed.parent.mkdir(parents=True)
    failed.write_text("error")
    damaged = zoo.results / "1_vocab/reviews.json"
    damaged.chmod(0o644)
    damaged.write_text(damaged.read_text().replace("reviews", "reviewz", 1))
    made = "5_finetune/reviews_lstm/other/random_seed_7.safetensors"
    for path, code, line in (
        (failed, 66, f"of a job whose result {made} is not here"),
        (zoo.results / "4_average", 66, "a folder; name a file in it"),
        (damaged, 76, "content has digest"),
        (damaged.with_suffix(".txt"), 76, "content has digest"),
    ):
        capsys.readouterr()
        assert main(["lineage", str(path), "--results", str(zoo.results)]) == code
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1


def test_a_copy_under_another_name_is_known_by_its_digest(
    finished: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    scores = f"results/6_evaluate/reviews_lstm/{DATASET}/random_seed_7.predictions.tsv"
    copy = zoo.results / "elsewhere.tsv"
    for source in (scores, "data/corpora/reviews.txt"):
        shutil.copy(zoo.folder / source, copy)
        note, *_ = lineage(zoo, "results/elsewhere.tsv", capsys)
        assert note.startswith("results/elsewhere.tsv: ") and note.endswith(" tells of it")
        record = read_json_artifact(zoo.folder / note.split()[1])
        assert digest_file(copy) in (record.get("predictions"), record.get("text"))
        copy.unlink()
