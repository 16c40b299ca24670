"""Speed of generation with and without the cache, whose tokens must be the same.

    python -m tests.benchmarks.bench_generate [--pairs 3] [--tokens 256]

Eight prompts of 4 to 16 tokens are continued by 256, drawn from the likeliest 40 of 21,128 tokens;
untrained weights, one thread. The two take turns, and the ratio is that of each pair.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.probes.generate import Continuation, GenerationConfig, Generator
from pipeline.text.rows import Ragged
from tests.pipeline.probes.tiny import open_model, write_vocabulary

VOCAB_SIZE = 21_128
TRANSFORMER = {
    "name": "transformer",
    "mask": "causal",
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 4,
    "feedforward_size": 1024,
}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transformer, 4 layers of 256": (TRANSFORMER, {"name": "bert"}),
    "lstm, 2 layers of 512": (
        {"name": "lstm", "hidden_size": 512, "num_layers": 2},
        {"name": "word"},
    ),
}


def main() -> int:
    """Measure every model; return 1 if tokens differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    print("model                          with cache  without     ratio  (tokens/s)")
    for name, (encoder, embedding) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            generators = _generators(Path(folder), encoder, embedding, args.tokens)
            pairs = [[_measure(made) for made in generators] for _ in range(args.pairs)]
        alike = all(cached[1] == whole[1] for cached, whole in pairs)
        speeds = [statistics.median(pair[n][0] for pair in pairs) for n in range(2)]
        ratios = [cached[0] / whole[0] for cached, whole in pairs]
        told = "same tokens" if alike else "OTHER TOKENS"
        print(
            f"{name:<30} {speeds[0]:>10,.0f} {speeds[1]:>8,.0f} {statistics.median(ratios):>8.1f}x "
            f"({min(ratios):.1f} to {max(ratios):.1f}), {told}"
        )
        failed |= not alike
    return int(failed)


def _generators(
    folder: Path, encoder: dict[str, Any], embedding: dict[str, Any], tokens: int
) -> list[Generator]:
    """Return a generator with and one without cache."""
    known = len(write_vocabulary(folder).read_text(encoding="utf-8").split("\n")) - 1
    write_vocabulary(folder, *(f"t{n}" for n in range(VOCAB_SIZE - known)))
    opened = open_model(folder, target="lm", encoder=encoder, embedding=embedding)
    config = GenerationConfig(new_tokens=tokens, stop=[], top_k=40, top_p=0.9)
    whole = config.model_copy(update={"cache": False})
    return [Generator(opened, config), Generator(opened, whole)]


def _measure(generator: Generator) -> tuple[float, list[Continuation]]:
    """Return (tokens per second, continuations)."""
    lengths = np.array([4, 4, 8, 8, 12, 12, 16, 16])
    prompts = Ragged(np.arange(lengths.sum()) % 60 + 5, np.concatenate([[0], np.cumsum(lengths)]))
    began = time.perf_counter()
    found = list(generator.iter_continuations(prompts, np.arange(len(lengths))))
    seconds = time.perf_counter() - began
    return sum(len(continuation.ids) for continuation in found) / seconds, found


if __name__ == "__main__":
    sys.exit(main())
