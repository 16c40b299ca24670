"""The harnesses of tests/benchmarks run to their end, on a few rows and without the reference.

No figure is looked at: speed and scores are what `make bench` and its siblings are for.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifacts import read_json_artifact
from pipeline.report.speeds import read_speeds
from tests.benchmarks import bench_finetune, bench_models
from tests.benchmarks.finetune_figures import compare, summarize, summarize_sides
from tests.benchmarks.finetune_reference import DEFECTS, MENDED, diagnose, read_score, standing
from tests.benchmarks.finetune_rows import CASES, cut, first_seen_labels
from tests.benchmarks.processes import Job, elapsed, run_jobs
from tests.faults.kit import review_lines

REVIEWS = CASES["douban_book_review"]


def write_table(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


@pytest.mark.slow
def test_fine_tuning_is_measured_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    lines = review_lines(72)
    for part, rows in (("train", lines[:40]), ("dev", lines[40:48]), ("test", lines[48:])):
        labelled = [f"{number % 2}\t{line}" for number, line in enumerate(rows)]
        write_table(tmp_path / "douban_book_review" / f"{part}.tsv", "label\ttext_a", *labelled)
    arguments = ["--data", tmp_path, "--work", tmp_path / "work", "--tasks", "douban_book_review"]
    arguments += ["--seeds", "7,17", "--rows", 32, "--test-rows", 16, "--epochs", 1, "--preset"]
    arguments += ["--json", tmp_path / "figures.json", "--out", tmp_path / "figures.txt"]
    first = bench_finetune.main(list(map(str, arguments)))
    record = first["tasks"]["douban_book_review"]
    assert record["counts"]["scored"] == 16
    assert set(record["sides"]) == {"ours", "preset"}
    assert all(0 <= score <= 100 for score in record["sides"]["ours"]["scores"])
    assert str(tmp_path) not in json.dumps(first), "figures name no place of this machine"
    assert "wall" in (tmp_path / "figures.txt").read_text(encoding="utf-8")
    again = bench_finetune.main(list(map(str, arguments)))
    assert again == first, "seconds too: nothing ran again"
    assert read_json_artifact(tmp_path / "figures.json", "bench_finetune") == again


@pytest.mark.slow
def test_models_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_models, "BASE", "mini_bert_tiny")
    monkeypatch.setattr(bench_models, "VOCAB_SIZE", 400)
    monkeypatch.delenv("CORPUS", raising=False)
    path = tmp_path / "speeds.json"
    arguments = ["--models", "mini_bert_tiny,mini_lstm", "--runs", "1", "--ranks", "1"]
    arguments += ["--steps", "2", "--lines", "20", "--json", str(path)]
    found = bench_models.main(arguments)
    assert found == read_json_artifact(path, "bench_models")
    speeds = read_speeds(path)
    assert [(speed.model, speed.what) for speed in speeds] == [
        ("mini_bert_tiny", "train"),
        ("mini_bert_tiny", "infer"),
        ("mini_lstm", "train"),
        ("mini_lstm", "infer"),
    ]
    assert all(speed.tokens_per_second > 0 == speed.spread for speed in speeds)


# Rows -----------------------------------------------------------------------------------------


def test_both_sides_get_rows_that_both_can_read(tmp_path: Path) -> None:
    rows = ["label\ttext_a", "1\t好", "0\t", "1", "0\t差", "1\t很好"]
    for part in ("train", "test", "dev"):
        write_table(tmp_path / "data" / f"{part}.tsv", *rows)
    found = cut(REVIEWS, tmp_path / "data", tmp_path / "cut", 2, 8)
    assert found.train.read_text(encoding="utf-8") == "label\ttext_a\n1\t好\n0\t差\n"
    assert found.dev.read_text(encoding="utf-8").count("\n") == 3
    assert found.test.read_text(encoding="utf-8").endswith("1\t很好\n")


def test_parts_of_one_file_do_not_overlap(tmp_path: Path) -> None:
    rows = [f"1\t{number}\tb" for number in range(20)]
    for name in ("train", "dev"):
        write_table(tmp_path / "data" / f"{name}.tsv", "label\ttext_a\ttext_b", *rows)
    found = cut(CASES["ocnli"], tmp_path / "data", tmp_path / "cut", 4, 8)
    test, dev = (path.read_text(encoding="utf-8").split("\n")[1:-1] for path in found[1:])
    assert [*test, *dev] == rows[:10]


def test_candidates_of_a_question_stay_together(tmp_path: Path) -> None:
    rows = ["1\t0\ta\tb", "1\t1\ta\tc", "2\t0\td\te", "3\t1\tf\tg", "4\t1\th\ti", "4\t0\th\tj"]
    for part in ("train", "test", "dev"):
        write_table(tmp_path / "data" / f"{part}.tsv", "qid\tlabel\ttext_a\ttext_b", *rows)
    found = cut(CASES["cmrc2018_dbqa"], tmp_path / "data", tmp_path / "cut", 4, 8)
    train = found.train.read_text(encoding="utf-8").split("\n")[1:-1]
    assert train == [rows[0], rows[1], rows[3]], "without the question that has no answer"


def test_questions_whose_answer_is_elsewhere_are_left_out(tmp_path: Path) -> None:
    def question(name: int, start: int) -> dict:
        return {"id": str(name), "question": "?", "answers": [{"text": "b", "answer_start": start}]}

    questions = [question(number, number % 2) for number in range(40)]
    value = {"data": [{"paragraphs": [{"context": "ab", "qas": questions}]}]}
    for name in ("trial", "dev"):
        write_table(tmp_path / f"{name}.json", json.dumps(value))
    found = cut(CASES["cmrc2018"], tmp_path, tmp_path / "cut", 20, 40)
    for path, ids in zip(found, (["1", "3", "5", "7"], ["1", "3", "5", "7"], ["9", "11"]),
                         strict=True):  # fmt: skip
        paragraphs = json.loads(path.read_text(encoding="utf-8"))["data"][0]["paragraphs"]
        assert [p["qas"][0]["id"] for p in paragraphs] == ids


def test_tags_are_numbered_in_the_order_in_which_they_come(tmp_path: Path) -> None:
    write_table(tmp_path / "train.tsv", "text_a\tlabel", "a b\tO B-LOC", "c\tB-PER", "d\tO")
    assert first_seen_labels(tmp_path / "train.tsv") == ["O", "B-LOC", "B-PER"]


# The reference's words ------------------------------------------------------------------------


def test_every_defect_is_described() -> None:
    named = {defect for mended in MENDED.values() for defect in mended}
    assert named <= set(DEFECTS)
    assert all("D-01" in standing(case) for case in CASES.values())
    assert [name for name, case in CASES.items() if "D-20" in standing(case)] == ["cmrc2018_dbqa"]


@pytest.mark.parametrize(
    ("name", "said", "score"),
    [
        ("ocnli", "Acc. (Correct/Total): 0.7500 (3/4) ", (75.0, None)),
        ("cmrc2018_dbqa", "Mean Reciprocal Rank: 0.3125", (31.25, None)),
        ("msra_ner", "Report precision, recall, and f1:\n0.1, 0.2, 0.143", (14.3, None)),
        ("cmrc2018", "Avg: 5.5,F1:1,EM:10\nAvg: 4.25,F1:1,EM:7", (4.25, 5.5)),
    ],
)
def test_scores_are_those_of_the_test_rows(name: str, said: str, score: tuple) -> None:
    dev = said.replace("3", "2").replace("5", "1")
    found = read_score(CASES[name], f"{dev}\nTest set evaluation.\n{said}\n")
    assert found == pytest.approx(score)


@pytest.mark.parametrize(
    ("name", "last", "defect"),
    [
        ("ocnli", "ZeroDivisionError: division by zero", "D-14"),
        ("msra_ner", "ZeroDivisionError: division by zero", "D-15"),
        ("msra_ner", "FileNotFoundError: ... 'runs/reference.bin'", "D-36"),
        ("ocnli", "FileNotFoundError: ... 'vocab.txt'", None),
        ("cmrc2018_dbqa", "IndexError: list index out of range", "D-20"),
        ("ocnli", "IndexError: index out of range in self", None),
        ("ocnli", "MemoryError", None),
    ],
)
def test_known_ends_have_names(name: str, last: str, defect: str | None) -> None:
    assert diagnose(CASES[name], f"Traceback ...\n{last}\n") == defect


# Figures --------------------------------------------------------------------------------------


def test_means_agree_within_two_standard_errors() -> None:
    ours, near, far = (summarize([mean - 1, mean, mean + 1]) for mean in (80.0, 81.5, 81.7))
    assert compare(ours, near)["two_standard_errors"] == pytest.approx(2 * (2 / 3) ** 0.5)
    assert compare(ours, near)["verdict"] == "agree"
    assert compare(ours, far)["verdict"] == "differ"
    assert compare(ours, summarize([80.0]))["verdict"] == "too few seeds"
    assert compare(ours, summarize([80.0, None]))["verdict"] == "not comparable"


def test_a_side_without_a_score_is_not_compared() -> None:
    cost = {"seconds": 10.0, "cpu_seconds": 10.0}
    ours = [{"score": 50.0, **cost}, {"score": 52.0, **cost}, {"score": 51.0, **cost}]
    theirs = [{"score": None, "defects": ["D-20"], **cost}] * 3
    record = summarize_sides(CASES["cmrc2018_dbqa"], {"ours": ours, "reference": theirs}, threads=2)
    assert record["comparisons"]["ours - reference"] == {"verdict": "not comparable"}
    assert record["wall_clock_ratio"] == 1.5
    assert list(record["mended"]) == ["D-20"]


def test_time_side_by_side() -> None:
    assert elapsed([3.0, 3.0, 3.0], 2) == 6.0
    assert elapsed([5.0, 1.0, 1.0], 2) == 5.0
    assert elapsed([1.0, 2.0], 1) == 3.0


def processes() -> str:
    return subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=True).stdout


def test_jobs_are_timed_with_their_children_and_stopped_with_the_iterator(tmp_path: Path) -> None:
    mark = f"{random.SystemRandom().random()}"
    busy = [sys.executable, "-c", "sum(range(4_000_000))"]
    sleep = [sys.executable, "-c", f"import time; time.sleep(100)  # {mark}"]
    jobs = {n: Job([c, c], tmp_path, tmp_path / f"{n}.log") for n, c in enumerate((busy, sleep))}
    found = run_jobs(jobs, 2)
    key, ended = next(found)
    assert (key, ended.code) == (0, 0)
    assert 0 < ended.cpu_seconds < 60
    found.close()
    deadline = time.monotonic() + 30
    while mark in (listed := processes()) and time.monotonic() < deadline:
        pass
    assert mark not in listed


def test_a_failed_job_tells_why(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "import sys; print('said'); sys.exit(3)"]
    never = [sys.executable, "-c", f"open({str(tmp_path / 'never')!r}, 'w')"]
    ((_, ended),) = run_jobs({0: Job([failing, never], tmp_path, tmp_path / "log")}, 1)
    assert (ended.code, ended.said) == (3, "said\n")
    assert not (tmp_path / "never").exists()
