"""Prediction from files and pipes: in order, with probabilities, nothing held back or lost."""

import json
import subprocess
import sys

import pytest

from tests.pipeline.labelled import (
    LSTM,
    finetune,
    reviews,
    run,
    tree,
    write,
    write_table,
    write_vocabulary,
)

SPEC = {
    "architecture": LSTM,
    "task": "classify",
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 0.01,
    "seq_length": 24,
    "pooling": "mean",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a vocabulary and a model of two labels."""
    folder = tmp_path_factory.mktemp("model")
    rows = reviews(48)
    write_vocabulary(folder, *rows)
    files = [
        write_table(folder / f"{part}.tsv", "label|text_a", lines)
        for part, lines in (("train", rows[:32]), ("dev", rows[32:]))
    ]
    assert finetune(folder, SPEC, *files).code == 0
    return folder


def predict(model, *more: object, stdin: bytes = b""):
    """Predict with the model."""
    files = ("--model", model / "model.safetensors", "--vocab", model / "vocab.txt")
    return run("predict", *files, *more, stdin=stdin)


def test_a_pipe_gives_a_line_for_each_row(model):
    done = predict(model, stdin="text_a\n书很好看\n很失望\n".encode())
    assert done.code == 0, done.err
    header, *lines = done.out.splitlines()
    assert header.split("\t") == ["id", "text_a", "predicted", "probability", "probabilities"]
    assert [line.split("\t")[:2] for line in lines] == [["2", "书很好看"], ["3", "很失望"]]
    for line in lines:
        _, _, label, share, shares = line.split("\t")
        assert json.loads(shares)[label] == float(share) >= 0.5
        assert sum(json.loads(shares).values()) == pytest.approx(1, abs=1e-5)
    assert done.err == "predict: 2 of 2 rows\n"


def test_order_and_values_do_not_depend_on_the_chunks(model, tmp_path, monkeypatch):
    texts = [row.partition("|")[2] for row in reviews(60)]
    data = write(tmp_path / "rows.tsv", "text_a", *texts)
    outputs = []
    for size in (1024, 7, 1):
        monkeypatch.setattr("pipeline.stages.predict.CHUNK_ROWS", size)
        done = predict(model, "--data", data)
        assert done.code == 0
        table = [line.split("\t") for line in done.out.splitlines()[1:]]
        assert [line[1] for line in table] == texts
        outputs.append([(line[2], round(float(line[3]), 4)) for line in table])
    assert outputs[0] == outputs[1] == outputs[2]


def test_labels_that_stand_there_are_not_read(model, tmp_path):
    data = write_table(tmp_path / "rows.tsv", "label|text_a", ["strange|书很好看"])
    done = predict(model, "--data", data, "--out", tmp_path / "out.tsv")
    assert (done.code, done.out) == (0, "")
    assert "strange" not in (tmp_path / "out.tsv").read_text(encoding="utf-8")


def test_json_lines_in_json_lines_out(model, tmp_path):
    rows = ['{"id": "x", "text_a": "书很\\n好看"}', '{"text_a": "坏"}']
    data = write(tmp_path / "rows.jsonl", *rows)
    done = predict(model, "--data", data)
    first, second = map(json.loads, done.out.splitlines())
    assert (first["id"], first["text_a"], second["id"]) == ("x", "书很\n好看", "2")
    assert first["predicted"] in {"0", "1"}
    piped = predict(model, "--format", "jsonl", stdin=data.read_bytes())
    assert piped.out == done.out


def test_bad_rows_stop_it_or_are_counted(model, tmp_path):
    data = write(tmp_path / "rows.tsv", "text_a", "书", " ", "好\t好", "看")
    before = tree(tmp_path)
    refused = predict(model, "--data", data, "--out", tmp_path / "out.tsv")
    assert refused.code == 65
    assert [error.partition(": ")[2] for error in refused.errors] == [
        f"{data}:3: text_a is empty; expected text",
        f"{data}:4: 2 tab-separated fields; the header has 1",
    ]
    assert tree(tmp_path) == before
    done = predict(model, "--data", data, "--set", "bad_rows=skip")
    assert [line.split("\t")[0] for line in done.out.splitlines()[1:]] == ["2", "5"]
    assert done.err == "predict: 2 of 4 rows; 1 empty text, 1 wrong number of fields\n"


def test_pairs_do_not_meet_a_model_of_single_texts(model):
    refused = predict(model, stdin="text_a\ttext_b\n书\t好\n".encode())
    assert (refused.code, refused.out) == (78, "")
    assert refused.errors == [
        "error: stdin: found pairs (text_a and text_b), the model was trained on single texts"
    ]


def test_nothing_in_nothing_out(model):
    done = predict(model, stdin=b"text_a\n")
    assert (done.code, done.out, done.err) == (0, "", "predict: 0 of 0 rows\n")
    assert predict(model, stdin=b"").code == 65


def test_a_real_pipe_with_a_foreign_locale(model):
    command = [sys.executable, "-m", "pipeline", "predict", "--model"]
    command += [str(model / "model.safetensors"), "--vocab", str(model / "vocab.txt")]
    done = subprocess.run(
        command,
        input="text_a\n书很好看\n".encode(),
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode("utf-8").splitlines()[1].startswith("2\t书很好看\t")


def test_tokens_of_running_text_are_tagged(tmp_path):
    rows = ["张 三 在 北 京|B-PER I-PER O B-LOC I-LOC"] * 8
    write_vocabulary(tmp_path, *rows)
    data = write_table(tmp_path / "train.tsv", "text_a|label", rows)
    assert finetune(tmp_path, {**SPEC, "task": "tag"}, data, data).code == 0
    for stdin in (b'{"text": "\xe5\xbc\xa0\xe4\xb8\x89"}\n', '{"text_a": "张 三"}\n'.encode()):
        done = predict(tmp_path, "--format", "jsonl", stdin=stdin)
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert found["text_a"] == "张 三"
        assert len(found["predicted"].split()) == 2
