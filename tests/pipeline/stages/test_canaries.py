"""Files that would run code if anything unpickled or built what they say, given to every stage.

Each payload would make a file; none appears. The converters' own cases stand in
test_convert_bad_input.py, a shell's in test_rules.py, a browser's in test_report_browser.py.
"""

# Fixtures are imported by name.
# ruff: noqa: F401, F811

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline.labelled import LSTM, TASK_SPEC, run, tree
from tests.pipeline.stages.checkpoints import Canary, canary, saved
from tests.pipeline.stages.training_command import make_inputs

PRETRAIN = {
    "architecture": LSTM,
    "targets": ["mlm"],
    "optimization": {"total_steps": 2, "checkpoint_steps": 2, "batch_size": 8},
}
TUNE = ["--spec", json.dumps({**TASK_SPEC, "task": "classify", "pooling": "mean"})]
SPACE = ["pretrain", "--spec", json.dumps(PRETRAIN), "--vocab", "{f}/chars.txt"]
TRAINED = ["--model", "{f}/model.safetensors", "--vocab", "{f}/vocab.txt"]
ROWS = ["--train", "{f}/train.tsv", "--dev", "{f}/dev.tsv", "--vocab", "{f}/vocab.txt"]
OUT = ["--out", "{f}/out/x.safetensors"]
TAG = '!!python/object/apply:os.system ["touch {canary}"]'
# The command with {e} for the malicious file, and the exit code.
MODELS: list[tuple[list[str], int]] = [
    ([*SPACE, "--instances", "{f}/set", "--init", "{e}", *OUT], 76),
    (["average", "--models", "{e}", *OUT], 76),
    (["finetune", *TUNE, *ROWS, "--init", "{e}", *OUT], 76),
    (["evaluate", "--model", "{e}", "--vocab", "{f}/vocab.txt", "--data", "{f}/dev.tsv", *OUT], 76),
    (["predict", "--model", "{e}", "--vocab", "{f}/vocab.txt", "--data", "{f}/dev.tsv", *OUT], 76),
    (["probe", "cloze", "--model", "{e}", "--vocab", "{f}/vocab.txt", "--in", "{f}/t.txt", *OUT],
     76),
    (["convert", "--from", "native", "--to", "native", "--in", "{e}", "--vocab", "{f}/vocab.txt",
      *OUT], 76),
]  # fmt: skip
TEXTS: list[tuple[list[str], int]] = [
    (["vocab", "--corpus", "{e}", *OUT], 65),
    (["vocab", "--import", "{e}", *OUT], 65),
    (["instances", "--spec", '{"kind": "lines"}', "--vocab", "{f}/vocab.txt", "--corpus", "{e}",
      *OUT], 65),
    (["instances", "--spec", '{"kind": "lines"}', "--vocab", "{e}", "--corpus", "{f}/t.txt", *OUT],
     65),
    (["fetch", "--spec", '{"sources": [{"path": "evil.bin"}]}', "--mirror", "{f}", *OUT], 65),
    (["finetune", *TUNE, *ROWS, "--train", "{e}", *OUT], 65),
    (["evaluate", *TRAINED, "--data", "{e}", *OUT], 65),
    (["predict", *TRAINED, "--data", "{e}", *OUT], 65),
    (["probe", "features", *TRAINED, "--in", "{e}", "--out", "{f}/out/x.arrow"], 65),
    (["verify", "{e}"], 66),
    (["lineage", "{e}"], 66),
    (["why", "{e}"], 66),
]  # fmt: skip
SPECS = [
    ["vocab", "--corpus", "{f}/t.txt"],
    ["instances", "--vocab", "{f}/vocab.txt", "--corpus", "{f}/t.txt"],
    ["pretrain", "--vocab", "{f}/chars.txt", "--instances", "{f}/set"],
    ["finetune", *ROWS],
    ["evaluate", *TRAINED, "--data", "{f}/dev.tsv"],
    ["fetch"],
    ["convert", "--from", "native", "--to", "native", "--in", "{f}/model.safetensors", "--vocab",
     "{f}/vocab.txt"],
    ["report", "--results", "{f}"],
]  # fmt: skip


@pytest.fixture
def folder(work: Callable[[str], Path]) -> Path:
    """A fine-tuned model with its data, a text, and instances with their vocabulary."""
    folder = work("classify")
    (folder / "t.txt").write_text("我[MASK]书\n", encoding="utf-8")
    (folder / "t").mkdir()
    inputs = make_inputs(folder / "t")
    inputs.vocab.rename(folder / "chars.txt")
    inputs.instances.rename(folder / "set")
    return folder


def assert_inert(folder: Path, canary: Path, command: list[str], code: int) -> str:
    """Run a command; return its line after checking that nothing ran and nothing was written."""
    before = tree(folder)
    places = {"{f}": str(folder), "{e}": str(folder / "evil.bin")}
    for mark, place in places.items():
        command = [text.replace(mark, place) for text in command]
    done = run(*command)
    assert (done.code, len(done.errors)) == (code, 1), done.err
    assert "Traceback" not in done.err
    assert not canary.exists()
    assert tree(folder) == before
    return done.errors[0]


PICKLES: dict[str, Callable[[Canary], bytes]] = {
    "zip": lambda evil: saved({"a": torch.ones(2), "b": evil}),
    "legacy": lambda evil: saved({"a": torch.ones(2), "b": evil}, zipped=False),
    "bare": pickle.dumps,
    "instances of 2020": lambda evil: pickle.dumps([1, 2]) + pickle.dumps((evil, [3])),
}


def named(commands: list[tuple[list[str], int]]) -> list[Any]:
    """Return the cases, each named by its stage and the option that takes the file."""
    return [
        pytest.param(command, code, id=f"{command[0]} {command[command.index('{e}') - 1]}")
        if "{e}" in command
        else pytest.param(command, code, id=command[0])
        for command, code in commands
    ]


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize(("command", "code"), named([*MODELS, *TEXTS]))
def test_e1_pickles(folder: Path, canary: Path, kind: str, command: list[str], code: int) -> None:
    (folder / "evil.bin").write_bytes(PICKLES[kind](Canary(canary)))
    assert_inert(folder, canary, command, code)


@pytest.mark.parametrize("name", ["manifest.json", "shard_00000.arrow"])
def test_pickled_instances(folder: Path, canary: Path, name: str) -> None:
    path = folder / "set" / name
    path.unlink()
    path.write_bytes(PICKLES["instances of 2020"](Canary(canary)))
    assert_inert(folder, canary, [*SPACE, "--instances", "{f}/set", *OUT], 76)


@pytest.mark.parametrize("command", [pytest.param(c, id=c[0]) for c in SPECS])
def test_c9_settings_with_tags(folder: Path, canary: Path, command: list[str]) -> None:
    spec = folder / "spec.yaml"
    spec.write_text(f"a: {TAG.format(canary=canary)}\n", encoding="utf-8")
    line = assert_inert(folder, canary, [*command, "--spec", str(spec), *OUT], 77)
    tag = "tag:yaml.org,2002:python/object/apply:os.system"
    assert line == f"error: {spec}:1: tag '{tag}' is not allowed"


def test_c9_json_too_deep(folder: Path, canary: Path) -> None:
    spec = '{"a": ' + "[" * 10_000 + "]" * 10_000 + "}"
    line = assert_inert(folder, canary, [*SPECS[0], "--spec", spec, *OUT], 77)
    assert line == "error: --spec: JSON nested 10001 deep; at most 64"


SETTINGS = [
    ('{"size": NaN}', 78, "--spec: not JSON: NaN is not JSON"),
    ('{"size": 9, "size": 8}', 78, "--spec: not JSON: key 'size' stands twice"),
    ('{"size": 9,}', 78, "--spec:1:12: not JSON: "),
]


@pytest.mark.parametrize(("spec", "code", "message"), SETTINGS)
def test_c2_and_c4_inline(folder: Path, canary: Path, spec: str, code: int, message: str) -> None:
    line = assert_inert(folder, canary, [*SPECS[0], "--spec", spec, *OUT], code)
    assert line.startswith(f"error: {message}")
