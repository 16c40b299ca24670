"""A fine-tuned model of every task on tiny data, made once for all tests of the stages."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.labelled import (
    BERT,
    NAMES,
    PLACES,
    TASK_SPEC,
    finetune,
    paired,
    ranked,
    reviews,
    squad,
    tagged,
    write_table,
    write_vocabulary,
)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder for each task: vocabulary, train, dev, and the model."""
    root = tmp_path_factory.mktemp("models")
    rows = reviews(64)
    tables = {
        "classify": ("label|text_a", rows[:40], rows[40:], "classify"),
        "pair": ("label|text_a|text_b", *paired(rows), "classify"),
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
        done = finetune(folder, {**TASK_SPEC, "task": task, "pooling": "mean"}, *files)
        assert done.code == 0, done.err
    folder = root / "span"
    folder.mkdir()
    files = [squad(folder / "train.json", 16), squad(folder / "dev.json", 8)]
    write_vocabulary(folder, *NAMES, *PLACES, "生于哪里，后来搬走。")
    done = finetune(folder, {**TASK_SPEC, "architecture": BERT, "task": "span"}, *files)
    assert done.code == 0, done.err
    return root


@pytest.fixture
def work(models, tmp_path):
    """Return a copy of a task's folder."""

    def copy(name: str) -> Path:
        shutil.copytree(models / name, tmp_path / name)
        return tmp_path / name

    return copy
