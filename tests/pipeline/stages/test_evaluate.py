"""Every task end to end through the command line, and what can be wrong with labelled rows."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from pipeline.artifacts import read_json_artifact, read_tensor_stamp
from pipeline.training.checkpoint import load_tensors, save_tensors
from tests.pipeline.labelled import (
    BERT,
    LSTM,
    evaluate,
    finetune,
    reviews,
    tree,
    write,
    write_table,
    write_vocabulary,
)

NAMES = ["张三", "李四", "王五", "赵六"]
PLACES = ["北京", "上海", "广州", "成都"]
SPEC = {"architecture": LSTM, "epochs": 2, "batch_size": 8, "learning_rate": 0.01, "seq_length": 24}


def tagged(count: int) -> list[str]:
    """Return rows `tokens|tags` of one person and one place each."""
    rows = []
    for number in range(count):
        name, place = NAMES[number % 4], PLACES[number * 7 // 4 % 4]
        rows.append(f"{' '.join(name)} 在 {' '.join(place)} 。|B-PER I-PER O B-LOC I-LOC O")
    return rows


def ranked(questions: int) -> list[str]:
    """Return rows `qid|label|question|candidate`, two candidates for a question."""
    rows = []
    for number in range(questions):
        name = NAMES[number % 4]
        for candidate in range(2):
            right = candidate == number % 2
            answer = f"{name if right else '有人'}在{PLACES[candidate]}"
            rows.append(f"{number}|{int(right)}|{name}在哪里|{answer}")
    return rows


def squad(path: Path, count: int, shift: int = 0) -> Path:
    """Write questions about where somebody was born."""
    paragraphs = []
    for number in range(count):
        name, place = NAMES[number % 4], PLACES[number * 3 % 4]
        answer = {"text": place, "answer_start": 4 + shift}
        asked = {"id": f"q{number}", "question": f"{name}生于哪里", "answers": [answer]}
        paragraphs.append({"context": f"{name}生于{place}，后来搬走。", "qas": [asked]})
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder for each task: vocabulary, train, dev, and the model."""
    root = tmp_path_factory.mktemp("models")
    rows = reviews(64)
    tables = {
        "classify": ("label|text_a", rows[:40], rows[40:], "classify"),
        "pair": ("label|text_a|text_b", *_pairs(rows), "classify"),
        "rank": ("qid|label|text_a|text_b", ranked(12), ranked(6), "rank"),
        "tag": ("text_a|label", tagged(24), tagged(10), "tag"),
        "crf": ("text_a|label", tagged(24), tagged(10), {"name": "tag", "crf": True}),
    }
    for name, (header, train, dev, task) in tables.items():
        folder = root / name
        folder.mkdir()
        write_vocabulary(folder, *train, *dev)
        files = [
            write_table(folder / f"{part}.tsv", header, list(lines))
            for part, lines in (("train", train), ("dev", dev))
        ]
        done = finetune(folder, {**SPEC, "task": task, "pooling": "mean"}, *files)
        assert done.code == 0, done.err
    folder = root / "span"
    folder.mkdir()
    files = [squad(folder / "train.json", 16), squad(folder / "dev.json", 8)]
    write_vocabulary(folder, *NAMES, *PLACES, "生于哪里，后来搬走。")
    done = finetune(folder, {**SPEC, "architecture": BERT, "task": "span"}, *files)
    assert done.code == 0, done.err
    return root


def _pairs(rows: list[str]) -> tuple[list[str], list[str]]:
    pairs = [f"{a}|{b.partition('|')[2]}" for a, b in itertools.pairwise(rows)]
    return pairs[:40], pairs[40:]


@pytest.fixture
def work(models, tmp_path):
    """Return a copy of a task's folder."""

    def copy(name: str) -> Path:
        shutil.copytree(models / name, tmp_path / name)
        return tmp_path / name

    return copy


MAIN = {
    "classify": ("accuracy", 24),
    "pair": ("accuracy", 23),
    "rank": ("mrr", 12),
    "tag": ("f1", 10),
    "crf": ("f1", 10),
    "span": ("average", 8),
}


@pytest.mark.parametrize("name", sorted(MAIN))
def test_every_task_is_evaluated_from_the_model_alone(work, name):
    folder = work(name)
    data = folder / ("dev.json" if name == "span" else "dev.tsv")
    done = evaluate(folder, data)
    assert done.code == 0, done.err
    metrics = read_json_artifact(folder / "metrics.json", "evaluate")
    main, rows = MAIN[name]
    assert metrics["main_metric"] == main == next(iter(metrics["metrics"]))
    assert all(0 <= value <= 1 for value in metrics["metrics"].values())
    assert metrics["counts"]["rows"] == metrics["counts"]["scored"] == rows
    assert metrics["counts"]["skipped"] == {}
    lines = (folder / "predictions.tsv").read_text(encoding="utf-8").split("\n")
    assert len(lines) == rows + 2
    columns = lines[0].split("\t")
    assert {"id", "gold", "predicted", "probability"} <= set(columns)
    assert all(len(line.split("\t")) == len(columns) for line in lines[1:-1])
    shown = read_json_artifact(folder / "metrics.json")
    again = evaluate(folder, data)
    assert again.code == 0
    assert read_json_artifact(folder / "metrics.json") == shown


def test_what_training_scored_on_dev_is_what_evaluation_finds(work):
    for name in ("classify", "tag", "rank"):
        folder = work(name)
        assert evaluate(folder, folder / "dev.tsv").code == 0
        dev = read_tensor_stamp(folder / "model.safetensors")["dev"]
        metrics = read_json_artifact(folder / "metrics.json")["metrics"]
        assert metrics[dev["metric"]] == dev["score"]


def test_rows_that_stand_in_training_are_counted_and_scored_apart(work):
    folder = work("classify")
    rows = (folder / "train.tsv").read_text(encoding="utf-8").splitlines()
    fresh = (folder / "dev.tsv").read_text(encoding="utf-8").splitlines()
    mixed = write(folder / "mixed.tsv", *rows[:6], *fresh[1:11])
    assert evaluate(folder, mixed).code == 0
    record = read_json_artifact(folder / "metrics.json")
    assert record["without_repeats"]["repeats"] == 5
    assert record["without_repeats"]["scored"] == 10
    assert evaluate(folder, write(folder / "fresh.tsv", *fresh[:11])).code == 0
    alone = read_json_artifact(folder / "metrics.json")
    assert record["without_repeats"]["metrics"] == alone["metrics"]


def test_rows_without_labels_are_predicted_and_not_scored(work):
    folder = work("classify")
    texts = [row.partition("|")[2][:9] for row in reviews(8)]
    done = evaluate(folder, write(folder / "test.tsv", "text_a", *texts))
    assert done.code == 0
    record = read_json_artifact(folder / "metrics.json")
    assert (record["metrics"], record["main_metric"]) == ({}, None)
    assert record["counts"] == {"rows": 8, "scored": 0, "skipped": {"no label": 8}}
    lines = (folder / "predictions.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 9
    assert "gold" not in lines[0].split("\t")


def test_special_characters_stay_inert(work):
    folder = work("classify")
    text = '=cmd()<script>alert(1)</script>\x1b[31m"\u202e'
    row = json.dumps({"label": 1, "text_a": text + "\n\t"})
    done = evaluate(folder, write(folder / "odd.jsonl", row))
    assert done.code == 0
    assert "\x1b" not in done.err
    line = (folder / "predictions.tsv").read_text(encoding="utf-8").split("\n")[1]
    assert line.split("\t")[1] == text.replace("\x1b", "\\x1b") + "\\n\\t"


# Row of the guide, task, lines of the file (| is a tab), exit code, what the message says, and
# how many rows the policy `skip` leaves out (None: not a question of policy).
BAD_ROWS = [
    ("D1", "classify", ["lable|txt", "1|好"], 65, "dev.tsv:1: no column label, text_a", None),
    ("D1", "classify", ["1|好", "0|坏"], 65, "found 1, 好", None),
    ("D2", "classify", ["label|text_a", "1", "0|好"], 65, "dev.tsv:2: 1 tab-separated", 1),
    ("D2", "classify", ["label|text_a", "1|好|坏", "0|好"], 65, "dev.tsv:2: 3 tab-separated", 1),
    ("D4", "classify", ["label|text_a", "0|好", "1| "], 65, "dev.tsv:3: text_a is empty", 1),
    ("D5", "classify", ["label|text_a", "0|好", "7|坏"], 65, "dev.tsv:3: label '7' does not", 1),
    ("D9", "classify", ["label|text_a", "neg|好", "pos|坏"], 78, "found neg, pos, the model", None),
    ("D10", "tag", ["text_a|label", "张 三|O", "张|O"], 65, "dev.tsv:2: 2 tokens and 1 tags", 1),
    ("D16", "classify", ["id|label|text_a", "a|0|好", "a|1|坏"], 65, "id 'a' stands already", None),
    ("D17", "classify", ["label|text_a"], 65, "dev.tsv: no rows left of 0", None),
    ("D17", "tag", ["text_a|label", "", ""], 65, "no rows left of 2 (2 blank line)", None),
]


@pytest.mark.parametrize(("row", "name", "lines", "code", "message", "skipped"), BAD_ROWS)
@pytest.mark.parametrize("stage", ["finetune", "evaluate"])
def test_bad_rows(work, row, name, lines, code, message, skipped, stage):
    folder = work(name)
    before = tree(folder)
    data = write(folder / "dev.tsv", *(line.replace("|", "\t") for line in lines))

    def attempt(*more: object):
        if stage == "evaluate":
            return evaluate(folder, data, *more)
        spec = {**SPEC, "epochs": 1, "task": name, "pooling": "mean"}
        return finetune(folder, spec, folder / "train.tsv", data, *more, out="new")

    if row == "D1" and stage == "evaluate":
        message = message.replace("label, text_a", "text_a")
    refused = attempt()
    assert refused.code == code, refused.err
    assert any(message in error for error in refused.errors), refused.err
    assert len(refused.errors) == len(refused.err.splitlines())
    assert tree(folder) == before
    if skipped is None:
        return
    done = attempt("--set", "bad_rows=skip")
    assert done.code == 0, done.err
    if stage == "evaluate":
        counts = read_json_artifact(folder / "metrics.json")["counts"]
        assert sum(counts["skipped"].values()) == skipped
        assert counts["rows"] == counts["scored"] + skipped


TRAINING = [
    ("D6", ["label|text_a", "0|好", "-1|坏"], 65, "train.tsv:3: label -1 is negative"),
    ("D7", ["label|text_a", "1|好", "1|坏"], 65, "only one class in training, '1'"),
    ("D17", ["label|text_a"], 65, "train.tsv: no rows left of 0"),
    (
        "D19",
        ["label|text_a", *(f"text {n}|1" for n in range(10_001))],
        65,
        "10001 distinct labels; at most 10000. Is a text taken for the column `label`?",
    ),
]


@pytest.mark.parametrize(("row", "lines", "code", "message"), TRAINING)
def test_bad_training_data(work, row, lines, code, message):
    folder = work("classify")
    before = tree(folder)
    train = write(folder / "train.tsv", *(line.replace("|", "\t") for line in lines))
    spec = {**SPEC, "task": "classify", "pooling": "mean"}
    refused = finetune(folder, spec, train, folder / "dev.tsv", out="new")
    assert refused.code == code, refused.err
    assert message in refused.errors[0]
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("label\ttext_a\n1\t好\n".encode("utf-16"), "this is UTF-16 text"),
        ("label\ttext_a\n1\tcafé\n".encode("windows-1252"), "dev.tsv:2: not UTF-8 at byte 18"),
        (b"\x1f\x8b\x08\x00\x00", "this is a gzip archive"),
    ],
)
def test_d21_other_encodings(work, data, message):
    folder = work("classify")
    (folder / "dev.tsv").write_bytes(data)
    refused = evaluate(folder, folder / "dev.tsv")
    assert refused.code == 65
    assert message in refused.errors[0]
    assert "save it as UTF-8" in refused.errors[0] or "give the text itself" in refused.errors[0]
    assert not (folder / "metrics.json").exists()


def test_d3_a_lone_quote_is_literal(work):
    folder = work("classify")
    data = write_table(folder / "dev.tsv", "label|text_a", ['0|"好', "1|坏", '0|好"的'])
    assert evaluate(folder, data).code == 0
    assert read_json_artifact(folder / "metrics.json")["counts"]["scored"] == 3


def test_d6_labels_may_be_names_or_numbers_with_gaps(work):
    folder = work("classify")
    texts = [row.partition("|")[2] for row in reviews(30)]
    for labels in (["10", "2", "0"], ["好评", "neutral", "bad one"]):
        rows = [f"{labels[n % 3]}|{text}" for n, text in enumerate(texts)]
        train = write_table(folder / "named.tsv", "label|text_a", rows)
        spec = {**SPEC, "task": "classify", "pooling": "mean", "epochs": 1}
        assert finetune(folder, spec, train, train, out="named").code == 0
        assert evaluate(folder, train, model="named").code == 0
        found = read_json_artifact(folder / "metrics.json")["labels"]
        assert found == sorted(labels, key=(int if "10" in labels else str))


def test_d8_rows_of_dev_that_stand_in_training_are_told(work):
    folder = work("classify")
    spec = {**SPEC, "task": "classify", "pooling": "mean", "epochs": 1}
    done = finetune(folder, spec, folder / "train.tsv", folder / "train.tsv", out="new")
    assert done.code == 0
    assert "finetune: dev: 40 of 40 rows used; 19 truncated, 40 also in training" in done.err


def test_d11_tags_outside_the_scheme_are_counted(work):
    folder = work("tag")
    data = write_table(folder / "dev.tsv", "text_a|label", ["张 三 在|I-PER I-PER O"])
    assert evaluate(folder, data).code == 0
    counts = read_json_artifact(folder / "metrics.json")["counts"]
    assert counts["inside tags without a begin"] == 1


def test_d12_answers_off_their_offset_follow_the_policy(work):
    folder = work("span")
    data = squad(folder / "dev.json", 3, shift=1)
    refused = evaluate(folder, data)
    assert refused.code == 65
    assert len(refused.errors) == 3
    assert (
        "question 'q0': answer '北京' does not stand at answer_start 5, found" in refused.errors[0]
    )
    assert not (folder / "metrics.json").exists()
    assert evaluate(folder, data, "--set", "bad_rows=skip").code == 0
    counts = read_json_artifact(folder / "metrics.json")["counts"]
    assert (counts["scored"], counts["answers not at their offset"]) == (3, 3)


def test_d13_and_d18_what_is_cut_is_counted(work):
    folder = work("span")
    question = {
        "id": "q",
        "question": "张三生于哪里",
        "answers": [{"text": "生于" * 20, "answer_start": 2}],
    }
    value = {"data": [{"paragraphs": [{"context": "张三" + "生于" * 30, "qas": [question]}]}]}
    data = write(folder / "long.json", json.dumps(value))
    assert evaluate(folder, data).code == 0
    counts = read_json_artifact(folder / "metrics.json")["counts"]
    assert counts["answers in no window"] == 1
    folder = work("classify")
    data = write_table(folder / "long.tsv", "label|text_a", ["0|" + "好" * 100, "1|坏"])
    assert evaluate(folder, data).code == 0
    assert read_json_artifact(folder / "metrics.json")["counts"]["truncated"] == 1
    spec = {**SPEC, "task": {"name": "classify", "long_texts": "fail"}, "pooling": "mean"}
    refused = finetune(folder, spec, data, data, out="new")
    assert refused.code == 65
    assert "long.tsv:2: 1 texts are longer than seq_length 24" in refused.errors[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"label": NaN, "text_a": "好"}', "dev.jsonl:2: not JSON: NaN is not JSON"),
        ('{"label": 1, "label": 0, "text_a": "好"}', "key 'label' stands twice"),
        ('{"label": 1, // one\n', "dev.jsonl:2:14: not JSON"),
        ('{"label": 1, "text_a": "好', "dev.jsonl:2:24: not JSON"),
    ],
)
def test_d14_and_d15_broken_json_lines_follow_the_policy(work, line, message):
    folder = work("classify")
    good = '{"label": 1, "text_a": "好"}'
    (folder / "dev.jsonl").write_text(f"{good}\n{line}", encoding="utf-8")
    refused = evaluate(folder, folder / "dev.jsonl")
    assert refused.code == 65
    assert message in refused.errors[0]
    assert not (folder / "metrics.json").exists()
    assert evaluate(folder, folder / "dev.jsonl", "--set", "bad_rows=skip").code == 0
    counts = read_json_artifact(folder / "metrics.json")["counts"]
    assert counts == {"rows": 2, "scored": 1, "skipped": {"not JSON": 1}}


def test_models_that_do_not_fit(work):
    folder = work("classify")
    other = write(folder / "other.txt", *(folder / "vocab.txt").read_text().splitlines(), "zz")
    refused = evaluate(folder, folder / "dev.tsv", "--vocab", other)
    assert refused.code == 78
    assert "made with vocabulary" in refused.errors[0]
    damaged = bytearray((folder / "model.safetensors").read_bytes())
    damaged[-9] ^= 1
    (folder / "damaged.safetensors").write_bytes(damaged)
    assert evaluate(folder, folder / "dev.tsv", model="damaged").code == 76
    assert evaluate(folder, folder / "dev.tsv", model="absent").code == 66
    pairs = write_table(folder / "pairs.tsv", "label|text_a|text_b", ["1|好|坏"])
    refused = evaluate(folder, pairs)
    assert (refused.code, "trained on single texts" in refused.errors[0]) == (78, True)
    assert not (folder / "metrics.json").exists()


def test_a_question_without_a_positive_candidate_is_counted(work):
    folder = work("rank")
    rows = [*ranked(2), "9|0|谁|张三", "9|0|谁|李四"]
    data = write_table(folder / "dev.tsv", "qid|label|text_a|text_b", rows)
    assert evaluate(folder, data).code == 0
    record = read_json_artifact(folder / "metrics.json")
    assert record["questions"] == {"all": 3, "scored": 2, "without a positive candidate": 1}
    assert record["counts"]["skipped"] == {"question without a positive candidate": 2}


def test_a_model_without_a_head_is_refused(work):
    folder = work("classify")
    tensors, metadata = load_tensors(folder / "model.safetensors")
    del metadata["task"]
    save_tensors(folder / "bare.safetensors", tensors, metadata)
    refused = evaluate(folder, folder / "dev.tsv", model="bare")
    assert (refused.code, "fine-tune it first" in refused.errors[0]) == (78, True)
