"""What can be wrong with labelled rows: exit code, message, policy, nothing left behind.

D1 to D21 are the rows of the bad-input matrix for fine-tuning data.
"""

import json

import pytest

from pipeline.artifacts import read_json_artifact
from tests.pipeline.labelled import (
    BERT,
    TASK_SPEC,
    evaluate,
    finetune,
    reviews,
    squad,
    tree,
    write,
    write_table,
)

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
    ("D2", "pair", ["label|text_a|text_b", "1|好", "0|好|坏"], 65, "dev.tsv:2: 2 tab-separated", 1),
    ("D2", "rank", ["qid|label|text_a|text_b", "1|1|谁", "1|1|谁|张三"], 65,
     "dev.tsv:2: 3 tab-separated", 1),
    ("D4", "pair", ["label|text_a|text_b", "1|好|", "0|好|坏"], 65, "dev.tsv:2: text_b is em", 1),
    ("D10", "tag", ["text_a|label", "张 三|O", "张|O"], 65, "dev.tsv:2: 2 tokens and 1 tags", 1),
    ("D10", "crf", ["text_a|label", "张|O", "张|O O"], 65, "dev.tsv:3: 1 tokens and 2 tags", 1),
    ("D16", "classify", ["id|label|text_a", "a|0|好", "a|1|坏"], 65, "id 'a' stands already", None),
    ("D17", "classify", ["label|text_a"], 65, "dev.tsv: no rows left of 0", None),
    ("D16", "tag", ["id|text_a|label", "a|张|O", "a|三|O"], 65, "id 'a' stands already", None),
    ("D17", "tag", ["text_a|label", "", ""], 65, "no rows left of 2 (2 blank line)", None),
]  # fmt: skip


@pytest.mark.parametrize(("row", "name", "lines", "code", "message", "skipped"), BAD_ROWS)
@pytest.mark.parametrize("stage", ["finetune", "evaluate"])
def test_bad_rows(work, row, name, lines, code, message, skipped, stage):
    folder = work(name)
    before = tree(folder)
    data = write(folder / "dev.tsv", *(line.replace("|", "\t") for line in lines))

    def attempt(*more: object):
        if stage == "evaluate":
            return evaluate(folder, data, *more)
        task = {"name": "tag", "crf": True} if name == "crf" else "classify"
        task = name if name in {"rank", "tag"} else task
        spec = {**TASK_SPEC, "epochs": 1, "task": task, "pooling": "mean"}
        return finetune(folder, spec, folder / "train.tsv", data, *more, out="new")

    content = data.read_bytes()
    if row == "D1" and stage == "evaluate":
        message = message.replace("label, text_a", "text_a")
    refused = attempt()
    assert refused.code == code, refused.err
    assert any(message in error for error in refused.errors), refused.err
    assert len(refused.errors) == len(refused.err.splitlines())
    assert tree(folder) == before and data.read_bytes() == content
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
    spec = {**TASK_SPEC, "task": "classify", "pooling": "mean"}
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
        spec = {**TASK_SPEC, "task": "classify", "pooling": "mean", "epochs": 1}
        assert finetune(folder, spec, train, train, out="named").code == 0
        assert evaluate(folder, train, model="named").code == 0
        found = read_json_artifact(folder / "metrics.json")["labels"]
        assert found == sorted(labels, key=(int if "10" in labels else str))


def test_d8_rows_of_dev_that_stand_in_training_are_told(work):
    folder = work("classify")
    spec = {**TASK_SPEC, "task": "classify", "pooling": "mean", "epochs": 1}
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
    spec = {**TASK_SPEC, "task": {"name": "classify", "long_texts": "fail"}, "pooling": "mean"}
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


PASSAGE = '{"context": "张三生于北京。", "qas": [QAS]}'
QUESTION = '{"id": "a", "question": "谁", "answers": [{"text": "北京", "answer_start": 4}]}'
JSON_FILES = [
    pytest.param('{"data": [], "data": []}', "not JSON: key 'data' stands twice", id="D14 twice"),
    pytest.param('{"data": [NaN]}', "not JSON: NaN is not JSON", id="D14 NaN"),
    pytest.param('{"data": [],}', "1:13: not JSON: ", id="D14 comma"),
    pytest.param('{"data": [] // x\n}', "1:13: not JSON: ", id="D14 comment"),
    pytest.param('{"data": [{"paragraphs": [', "1:27: not JSON: ", id="D15"),
    pytest.param(f"{QUESTION}, {QUESTION}", "id 'a' stands already in ", id="D16"),
    pytest.param('{"data": []}', "no rows left of 0", id="D17"),
    pytest.param(QUESTION.replace("4", "-1"), "does not stand at answer_start -1", id="D12"),
]


@pytest.mark.parametrize("stage", ["finetune", "evaluate"])
@pytest.mark.parametrize(("text", "message"), JSON_FILES)
def test_files_of_questions(work, text, message, stage):
    folder = work("span")
    if not text.startswith('{"data"'):
        text = '{"data": [{"paragraphs": [PASSAGE]}]}'.replace(
            "PASSAGE", PASSAGE.replace("QAS", text)
        )
    before = tree(folder)
    data = folder / "dev.json"
    data.write_text(text, encoding="utf-8")
    if stage == "evaluate":
        refused = evaluate(folder, data)
    else:
        spec = {**TASK_SPEC, "architecture": BERT, "task": "span", "epochs": 1}
        refused = finetune(folder, spec, folder / "train.json", data, out="new")
    assert (refused.code, len(refused.errors)) == (65, 1), refused.err
    assert refused.errors[0].startswith(f"error: {data}:") and message in refused.errors[0]
    assert len(refused.err.splitlines()) == 1
    assert tree(folder) == before and data.read_text(encoding="utf-8") == text


def test_every_evaluation_says_what_became_of_its_rows(work):
    """Rows in = scored + skipped by reason, for every task, with rows of all kinds."""
    bad = {
        "classify": ["1", "7|好", "0| ", "", "0|好"],
        "pair": ["1|好", "0|好|坏|x", "1|好|坏"],
        "rank": ["1|1|谁", "2|0|谁|张三", "3|1|谁|李四"],
        "tag": ["张 三|B-PER I-PER", "张|X", "张|O O"],
    }
    for name, rows in bad.items():
        folder = work(name)
        header = (folder / "dev.tsv").read_text(encoding="utf-8").partition("\n")[0]
        data = write_table(folder / "bad.tsv", header.replace("\t", "|"), rows)
        done = evaluate(folder, data, "--set", "bad_rows=skip")
        assert done.code == 0, done.err
        counts = read_json_artifact(folder / "metrics.json")["counts"]
        assert counts["rows"] == len(rows)
        assert counts["rows"] == counts["scored"] + sum(counts["skipped"].values())
        assert counts["scored"] == 1 and len(counts["skipped"]) >= 1
