"""The stage pretrain within this process, on a tiny set whose two shards are of equal length."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import digest_file
from tests.faults.kit import SPEC
from tests.pipeline.stages.data_command import Outcome, instances, run, write_vocab
from tests.pipeline.text.test_shards import edit
from tests.pipeline.text.writing import written

SHARD, OTHER = "shard_00000.arrow", "shard_00001.arrow"
ROWS, TOKENS = 32, 10  # of each shard, of each row
LINES = "".join(f"我爱北京天安门{number:03d}\n" for number in range(2 * ROWS))


@dataclass(frozen=True)
class TrainingInputs:
    """A vocabulary and an instance set."""

    vocab: Path
    instances: Path


def make_inputs(folder: Path, lines: str = LINES) -> TrainingInputs:
    """Build the vocabulary and the set."""
    vocab = write_vocab(folder / "vocab.txt", *"我爱北京天安门0123456789")
    corpus = written(folder / "corpus.txt", lines)
    done = instances(folder / "set", vocab, corpus, tokenizer="char", shards=2, seq_length=32)
    assert done.code == 0, done.lines
    return TrainingInputs(vocab, folder / "set")


def changed(**optimization: Any) -> dict[str, Any]:
    """Return the spec with other settings of the optimization."""
    spec = copy.deepcopy(SPEC)
    spec["optimization"].update(optimization)
    return spec


def train(
    inputs: TrainingInputs, out: Path, *more: object, spec: object = SPEC, **paths: Path
) -> Outcome:
    """Run the stage; `paths` replace the inputs'. Of what it says, keep errors and warnings."""
    given = {"instances": inputs.instances, "vocab": inputs.vocab, **paths}
    files = [part for name, path in given.items() for part in (f"--{name}", path)]
    done = run("pretrain", "--spec", json.dumps(spec), *files, "--out", out, *more)
    kept = [line for line in done.lines if line.startswith(("error: ", "warning: "))]
    return Outcome(done.code, kept)


def replace(path: Path, data: bytes) -> None:
    """Write other bytes under the name of a published file."""
    path.unlink()
    path.write_bytes(data)


def forge(folder: Path, data: bytes, rows: int = ROWS, tokens: int = ROWS * TOKENS) -> None:
    """Put other bytes in place of the first shard, with a manifest that vouches for them."""
    replace(folder / SHARD, data)

    def vouch(values: dict[str, Any]) -> None:
        entry = values["shards"][0]
        entry |= {"bytes": len(data), "digest": digest_file(folder / SHARD)}
        entry |= {"rows": rows, "tokens": tokens}
        values["rows"] = rows + ROWS
        values["tokens"] = tokens + ROWS * TOKENS

    edit(folder, vouch)
