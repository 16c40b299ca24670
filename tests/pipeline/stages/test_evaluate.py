"""Every task end to end through the command line, from what the model itself says."""

import json

import pytest

from pipeline.artifacts import digest_file, read_json_artifact, read_tensor_stamp
from pipeline.training.checkpoint import load_tensors, save_tensors
from tests.pipeline.labelled import evaluate, ranked, reviews, write, write_table

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


def seen_before(folder, *corpora):
    """Return what evaluate says of rows seen in training, in a corpus, in either: rows, scored."""
    assert evaluate(folder, folder / "dev.tsv", "--corpus", *corpora).code == 0
    record = read_json_artifact(folder / "metrics.json")
    places = (record[name] for name in ("without_repeats", "in_corpus", "in_either"))
    return [(place["repeats"], place["scored"]) for place in places]


def test_rows_that_stand_in_a_corpus_are_counted_and_scored_apart(work):
    folder = work("classify")
    train, dev = (
        (folder / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
        for part in ("train", "dev")
    )
    write(folder / "dev.tsv", *dev, train[1])
    texts = [row.partition("\t")[2] for row in dev[1:8]]
    first = write(folder / "first.txt", *texts[:4], "别的")
    second = write(folder / "second.txt", *(f"0\t{text}" for text in texts[4:]))
    assert seen_before(folder, first, second) == [(1, 24), (7, 18), (8, 17)]
    record = read_json_artifact(folder / "metrics.json")
    assert record["stamp"]["inputs"]["corpus second"] == [digest_file(second)]
    assert evaluate(folder, write(folder / "rest.tsv", *dev[:1], *dev[8:])).code == 0
    alone = read_json_artifact(folder / "metrics.json")
    assert record["in_either"]["metrics"] == alone["metrics"]
    assert "in_corpus" not in alone and "in_either" not in alone


@pytest.mark.parametrize(
    ("name", "lines", "rows"),
    [
        ("pair", lambda fields: fields[:1], 2),
        ("tag", lambda fields: [fields[0].replace(" ", "")], 1),
        ("tag", lambda fields: fields[:1], 1),
        ("rank", lambda fields: fields[:1], 4),
    ],
    ids=["second", "joined", "spaced", "question"],
)
def test_any_text_of_a_row_may_stand_in_a_corpus(work, name, lines, rows):
    folder = work(name)
    row = (folder / "dev.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")
    fields = {"tag": row, "pair": row[2:], "rank": row[2:]}[name]
    found = seen_before(folder, write(folder / "corpus.txt", *lines(fields)))
    assert found[1][0] == rows


def test_passages_that_stand_in_a_corpus(work):
    folder = work("span")
    data = json.loads((folder / "dev.json").read_text(encoding="utf-8"))
    corpus = write(folder / "corpus.txt", data["data"][0]["paragraphs"][0]["context"])
    assert evaluate(folder, folder / "dev.json", "--corpus", corpus).code == 0
    record = read_json_artifact(folder / "metrics.json")
    assert record["in_corpus"]["repeats"] + record["in_corpus"]["scored"] == 8
    assert record["in_corpus"]["repeats"] >= 1


def test_a_corpus_with_every_row_leaves_no_score(work):
    folder = work("classify")
    rows = (folder / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    corpus = write(folder / "corpus.txt", *(row.partition("\t")[2] for row in rows))
    assert seen_before(folder, corpus) == [(0, 24), (24, 0), (24, 0)]
    assert read_json_artifact(folder / "metrics.json")["in_corpus"]["metrics"] == {}


def test_a_corpus_that_is_not_there(work):
    folder = work("classify")
    refused = evaluate(folder, folder / "dev.tsv", "--corpus", folder / "absent.txt")
    assert refused.code == 66
    assert refused.errors == [f"error: {folder}/absent.txt: no such file (--corpus)"]
    assert not (folder / "metrics.json").exists()
    assert not (folder / "predictions.tsv").exists()


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
