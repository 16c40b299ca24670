"""G1: a full disk at each write site: one line, exit 74, nothing torn and nothing left.

The disk is full from the n-th file on that a stage flushes; every n is tried.
"""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import artifacts
from tests.pipeline.labelled import LSTM, TASK_SPEC, Outcome, run
from tests.pipeline.stages.training_command import make_inputs

PRETRAIN = {
    "architecture": LSTM,
    "targets": ["mlm"],
    "optimization": {"total_steps": 2, "checkpoint_steps": 2, "batch_size": 8, "resume_steps": 1},
}
# Stage -> its arguments, {f} a folder with a fine-tuned model and its data, {o} an empty one.
STAGES: dict[str, list[str]] = {
    "fetch": ["--spec", '{"sources": [{"path": "text.txt"}]}', "--mirror", "{f}", "--out",
              "{o}/c.txt"],
    "vocab": ["--corpus", "{f}/text.txt", "--out", "{o}/vocab.txt"],
    "instances": ["--spec", '{"kind": "lines", "shards": 2, "held_out": 0.2}', "--corpus",
                  "{f}/text.txt", "--vocab", "{f}/vocab.txt", "--out", "{o}/set"],
    "pretrain": ["--spec", json.dumps(PRETRAIN), "--instances", "{f}/set", "--vocab",
                 "{f}/chars.txt", "--out", "{o}/run"],
    "average": ["--models", "{f}/model.safetensors", "--out", "{o}/mean.safetensors"],
    "finetune": ["--spec", json.dumps({**TASK_SPEC, "task": "classify", "pooling": "mean"}),
                 "--train", "{f}/train.tsv", "--dev", "{f}/dev.tsv", "--vocab", "{f}/vocab.txt",
                 "--out", "{o}/model.safetensors"],
    "evaluate": ["--model", "{f}/model.safetensors", "--vocab", "{f}/vocab.txt", "--data",
                 "{f}/dev.tsv", "--out", "{o}/m.json", "--predictions", "{o}/p.tsv"],
    "predict": ["--model", "{f}/model.safetensors", "--vocab", "{f}/vocab.txt", "--data",
                "{f}/dev.tsv", "--out", "{o}/p.tsv"],
    "convert": ["--from", "native", "--to", "native", "--in", "{f}/model.safetensors", "--vocab",
                "{f}/vocab.txt", "--out", "{o}/model"],
    "probe": ["features", "--model", "{f}/model.safetensors", "--vocab", "{f}/vocab.txt", "--in",
              "{f}/text.txt", "--out", "{o}/f.arrow"],
    "check": ["reviews_lstm", "--out", "{o}/all.json"],
}  # fmt: skip


@pytest.fixture
def folder(work: Callable[[str], Path]) -> Path:
    """A fine-tuned model and its data; beside them a text, and instances with their vocabulary."""
    folder = work("classify")
    rows = (folder / "train.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    text = "".join(row.partition("\t")[2] + "\n" for row in rows)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    (folder / "t").mkdir()
    inputs = make_inputs(folder / "t")
    inputs.vocab.rename(folder / "chars.txt")
    inputs.instances.rename(folder / "set")
    return folder


class Disk:
    """Is full from the n-th file on that is flushed."""

    def __init__(self, room: int):
        self.room, self._sync = room, artifacts.sync

    def sync(self, path: Path) -> None:
        """Flush, or refuse."""
        if path.is_file():
            self.room -= 1
            if self.room < 0:
                raise OSError(errno.ENOSPC, "no space left on device")
        self._sync(path)


def attempts(
    stage: str, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Outcome]]:
    """Run the stage with room for 0, 1, 2 ... files until it succeeds; yield the failures."""
    for room in range(20):
        place = out / str(room)
        place.mkdir(parents=True)
        disk = Disk(room)
        arguments = [text.replace("{f}", str(folder)) for text in STAGES[stage]]
        with monkeypatch.context() as patched:
            for module in ("pipeline.artifacts", "pipeline.stages.model_directory"):
                patched.setattr(f"{module}.sync", disk.sync)
            done = run(stage, *(text.replace("{o}", str(place)) for text in arguments))
        if done.code == 0:
            return
        yield place, done
    raise AssertionError(f"{stage} wants more than 20 files")


def files(folder: Path) -> dict[str, Any]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", STAGES)
def test_g1(stage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, count = files(folder), 0
    for place, done in attempts(stage, folder, tmp_path / "out", monkeypatch):
        count += 1
        assert done.code == 74, done.err
        (line,) = done.errors
        assert line.startswith(f"error: {place}/"), line
        assert ": no space left on the disk, " in line and line.endswith(" bytes free")
        left = [path for path in place.rglob("*") if path.is_file()]
        # Resume points, and what was published before, are whole; half a file is nowhere.
        assert not [path for path in left if artifacts.TEMPORARY_MARK in path.name], left
        assert not [path for path in left if artifacts.SCRATCH_MARK in str(path)], left
    assert count >= 1
    assert files(folder) == before
