"""`verify` through the command line: what is whole, what is not, and in which line it says so."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact, write_json, write_text
from tests.faults.kit import ROOT, flip_bit, truncate
from tests.pipeline.report.zoo import DATASET, Zoo

RUN = f"reviews_lstm/{DATASET}/pretrained_seed_7"
STEP = "results/3_pretrain/reviews_lstm/step_00000500"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    zoo = Zoo(tmp_path_factory.mktemp("zoo")).build()
    arguments = ["--results", zoo.results, "--data", zoo.folder / "data", "--out"]
    assert main(["report", *map(str, [*arguments, zoo.results / "7_report/report.html"])]) == 0
    return zoo


@pytest.fixture
def zoo(finished: Zoo, tmp_path: Path) -> Zoo:
    shutil.copytree(finished.folder, tmp_path / "zoo")
    return Zoo(tmp_path / "zoo")


def verify(*paths: Path) -> int:
    return main(["verify", *map(str, paths)])


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on stderr, without their prefix."""
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def rewrite(path: Path, **changes: Any) -> None:
    """Publish a record anew with other fields, its digest right."""
    write_json(path, {**read_json_artifact(path), **changes})


def test_everything_of_a_finished_zoo_is_whole(
    finished: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(finished.results, finished.folder / "data") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[-1] == "80 whole"
    assert {re.split(r"\s{2,}", line)[1] for line in lines[:-1]} == {
        "weights", "manifest", "shard", "vocabulary", "text", "data", "predictions", "report",
        "record of fetch", "record of vocab", "record of instances", "record of pretrain",
        "record of evaluate", "record of probe", "output of probe",
    }  # fmt: skip


def test_files_may_be_given_one_by_one(finished: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    shard = finished.results / "2_instances/reviews_lines/shard_00001.arrow"
    assert verify(shard, finished.folder / f"{STEP}.safetensors") == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in shown[:-1]] == [["whole", "shard"], ["whole", "weights"]]


KINDS = [
    "data/corpora/reviews.txt",
    "data/corpora/reviews.ledger.json",
    f"data/datasets/{DATASET}/dev.tsv",
    f"data/datasets/{DATASET}/ledger.json",
    "results/1_vocab/reviews.txt",
    "results/1_vocab/reviews.json",
    "results/2_instances/reviews_lines/manifest.json",
    "results/2_instances/reviews_lines/shard_00000.arrow",
    "results/2_instances/reviews_lines/held_out_00001.arrow",
    "results/2_instances/reviews_lines/shard_00000.json",
    f"{STEP}.safetensors",
    f"{STEP}.json",
    "results/4_average/reviews_lstm.safetensors",
    f"results/5_finetune/{RUN}.safetensors",
    f"results/6_evaluate/{RUN}.json",
    f"results/6_evaluate/{RUN}.predictions.tsv",
    "results/6_probe/reviews_lstm/characters.json",
    "results/6_probe/reviews_lstm/characters.jsonl",
    "results/7_report/report.html",
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_bit_that_flips_is_found(
    kind: str, finished: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = finished.folder / kind
    folder = tmp_path / source.parent.name
    shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns("*.log"))
    path = folder / source.name
    for seed in random.Random(kind).sample(range(10_000), 12):
        flip_bit(path, seed)
        code, lines = verify(path), errors(capsys)
        assert code == 76, (seed, lines)
        assert lines and all(line.startswith(str(path)) for line in lines)
        flip_bit(path, seed)
    assert verify(path) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lost_its_last_byte_is_found(
    kind: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.folder / kind
    if path.suffix in {".json", ".txt"} or kind.endswith("html"):
        truncate(path, path.stat().st_size // 2)  # the last byte is a line end, no content
    else:
        truncate(path, path.stat().st_size - 1)
    assert verify(path) == 76
    assert any(str(path) in line for line in errors(capsys))


def test_each_damaged_file_has_a_line(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = [zoo.folder / KINDS[place] for place in (2, 7, 10, 12)]
    for number, path in enumerate(damaged):
        flip_bit(path, number + 50)
    assert verify(zoo.folder) == 76
    lines = errors(capsys)
    assert all(sum(str(path) + ":" in line for line in lines) == 1 for path in damaged)
    assert len(lines) == len(damaged)


def test_swapped_shards_are_both_named(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    folder = zoo.results / "2_instances/reviews_lines"
    one, two = folder / "shard_00000.arrow", folder / "shard_00001.arrow"
    one.rename(folder / "between"), two.rename(one), (folder / "between").rename(two)
    assert verify(folder) == 76
    lines = errors(capsys)
    assert [line.partition(":")[0] for line in lines] == [str(one), str(two)]


def test_a_shard_that_is_gone_is_missing(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    shard = zoo.results / "2_instances/reviews_lines/shard_00001.arrow"
    shard.unlink()
    assert verify(zoo.results) == 66
    assert errors(capsys) == [f"{shard}: no such file; the manifest lists it, build it again"]


def test_an_arrow_file_that_nothing_lists_is_no_kind_of_ours(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.results / "2_instances/reviews_lines"
    shutil.copy(folder / "shard_00000.arrow", folder / "shard_00007.arrow")
    assert verify(folder) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "shard_00007" in line)
    assert re.split(r"\s{2,}", line)[:2] == ["unknown", "unknown kind"]


def test_answers_of_another_model_misfit(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.probe("reviews_lstm", "texts", "e" * 64)
    average = zoo.results / "4_average/reviews_lstm.safetensors"
    assert verify(zoo.results) == 78
    assert errors(capsys) == [
        f"{path}: made with model eeeeeeeeeeee..., {average} is another; build it again"
    ]


def test_rows_without_books_and_foreign_files_are_unknown(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.results / "6_probe/reviews_lstm"
    (folder / "texts.json").unlink()
    (folder / "notes.jsonl").write_text("{}\n")
    (folder / "notes.json").write_text('{"not": "ours"}')
    assert verify(folder) == 0
    states = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert sorted(states) == ["unknown"] * 3 + ["whole"] * 2


def entries(zoo: Zoo) -> list[dict[str, Any]]:
    path = zoo.folder / KINDS[6]
    return [dict(entry) for entry in read_json_artifact(path)["shards"]]


def test_a_manifest_that_leaves_its_folder_is_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = entries(zoo)
    shards[0]["file"] = "../shard_00000.arrow"
    path = zoo.folder / KINDS[6]
    rewrite(path, shards=shards)
    assert verify(path) == 77
    assert errors(capsys) == [f"{path}: shard '../shard_00000.arrow' is not a plain file name"]


def test_a_manifest_with_an_entry_twice_is_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.folder / KINDS[6]
    rewrite(path, shards=[entries(zoo)[0]] * 2)
    assert verify(path) == 65
    assert errors(capsys) == [
        f"{path}: shard 'shard_00000.arrow' stands where shard_00001.arrow belongs"
    ]


def test_a_manifest_with_a_wrong_total_is_damaged(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.folder / KINDS[6]
    rows = read_json_artifact(path)["rows"]
    rewrite(path, rows=rows + 1)
    assert verify(path) == 76
    assert errors(capsys) == [f"{path}: rows {rows + 1}, shards sum to {rows}"]


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[5], KINDS[6], KINDS[11], KINDS[14]])
def test_records_of_a_newer_version_are_refused(
    kind: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.folder / kind
    rewrite(path, stamp={**read_json_artifact(path)["stamp"], "format": 2})
    assert verify(path) == 78
    assert errors(capsys) == [f"{path}: format 2, made by a newer version; this one reads up to 1"]


def test_shards_of_another_vocabulary_do_not_fit(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = zoo.folder / "data/corpora/reviews.txt"
    vocabulary = zoo.results / "1_vocab/reviews.txt"
    Zoo.stage("vocab", {"size": 50}, "--corpus", texts, "--out", vocabulary)
    capsys.readouterr()
    assert verify(zoo.results / "1_vocab", zoo.results / "2_instances") == 78
    beside = vocabulary.with_suffix(".json")
    lines = errors(capsys)
    assert [line.partition(":")[0].rpartition("/")[2] for line in lines] == [
        "manifest.json", "shard_00000.json", "shard_00001.json",
    ]  # fmt: skip
    assert all(line.endswith(f", {beside} is another; build it again") for line in lines)


def test_swapped_metrics_do_not_fit_their_models(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    one = zoo.results / f"6_evaluate/{RUN}.json"
    two = one.with_name("random_seed_7.json")
    one.rename(one.with_name("between")), two.rename(one), one.with_name("between").rename(two)
    assert verify(zoo.results) == 78
    lines = errors(capsys)
    assert [line.partition(":")[0] for line in lines] == [str(one), str(two)]
    assert "made with model" in lines[0] and "5_finetune/" in lines[0]


def test_a_checkpoint_torn_between_two_runs_is_damaged(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.folder / f"{STEP}.safetensors"
    other = zoo.results / "3_pretrain/reviews_bert_tiny/step_00000500.safetensors"
    path.unlink()
    shutil.copy(other, path)
    assert verify(path.parent) == 76
    (line,) = errors(capsys)
    assert line.startswith(f"{path}: SHA-256 ") and line.endswith("they are of different runs")


def test_the_gravest_kind_decides_and_all_are_told(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    (zoo.results / "2_instances/reviews_lines/shard_00001.arrow").unlink()
    flip_bit(zoo.folder / KINDS[12], 3)
    assert verify(zoo.results) == 76
    assert len(errors(capsys)) == 2


def test_predictions_that_no_record_vouches_for_are_said_to_be_so(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = zoo.results / f"6_evaluate/{RUN}.json"
    rewrite(metrics, predictions=None)
    assert verify(metrics, metrics.with_suffix(".predictions.tsv")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 no digest, 1 whole"


def test_an_edited_record_is_damaged(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.results / f"6_evaluate/{RUN}.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("0.8594", "0.9594"))
    assert verify(path) == 76
    (line,) = errors(capsys)
    assert line.startswith(f"{path}: content has digest ") and "edited or damaged" in line


def test_files_of_others_are_said_to_be_so(tmp_path: Path, zoo: Zoo, capsys: Any) -> None:
    folder = tmp_path / "mixed"
    for name in ("notes.md", "other.json", "page.html", "table.tsv", "words.txt"):
        write_text(folder / name, '{"a": 1}\n')
    shutil.copy(zoo.folder / KINDS[12], folder)
    assert verify(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 unknown, 1 whole"


def test_nothing_of_ours_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(tmp_path / "notes.md", "x")
    assert verify(tmp_path) == 66
    assert errors(capsys) == [f"{tmp_path}: no file of this pipeline among 1"]


def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert verify(one, two) == 66
    assert errors(capsys) == [f"{path}: no such file or folder" for path in (one, two)]


def test_names_do_not_reach_the_terminal_raw(zoo: Zoo, capsys: Any) -> None:
    hostile = zoo.results / "4_average/\x1b[31mred\n.safetensors"
    shutil.copy(zoo.folder / KINDS[12], hostile)
    assert verify(hostile) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_it_needs_no_torch(finished: Zoo) -> None:
    code = (
        "import sys; from pipeline.__main__ import main; "
        f"assert main(['verify', {str(finished.results)!r}]) == 0; "
        "assert not {'torch', 'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
