"""Let a fine-tuned model label rows that have no labels; streams from a file or standard input.

One line goes out for each good row, in their order, with probabilities. Rows are TSV with a
header or JSON lines, in the columns of the model's task; labels that stand there are not read.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.spec import EvaluateSpec, load_spec
from pipeline.stages.predictions import STANDARD, json_lines, published_output, tab_lines
from pipeline.text.tables import RowLedger, is_json_lines, standard_input

if TYPE_CHECKING:
    from pipeline.training.inference import FinetunedModel

# Enough rows to batch by length; what memory holds at a time.
CHUNK_ROWS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", default="", help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--model", type=Path, required=True, help="a fine-tuned model")
    parser.add_argument("--vocab", type=Path, help="absent: that of the directory --model")
    parser.add_argument("--data", type=Path, default=STANDARD, help="rows; - (default): stdin")
    parser.add_argument("--out", type=Path, default=STANDARD, help="lines; - (default): stdout")
    parser.add_argument(
        "--format", choices=["tsv", "jsonl"], help="of both; default by the name of --data, or tsv"
    )


def run(args: argparse.Namespace) -> None:
    """Read, predict and write chunk by chunk."""
    spec, options = load_spec(EvaluateSpec, args.spec, args.set)
    # Read when the arithmetic libraries load, so set before torch is imported.
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")
    from pipeline.training.inference import open_finetuned
    from pipeline.training.loop import find_device, prepare_torch

    device = find_device(options.device)
    prepare_torch(device)
    model = open_finetuned(args.model, args.vocab, device)
    as_json = args.format == "jsonl" if args.format else is_json_lines(args.data)
    source: Path | BinaryIO = standard_input() if args.data == STANDARD else args.data
    where = "stdin" if args.data == STANDARD else str(args.data)
    ledger = RowLedger(where, spec.bad_rows or model.metadata["stamp"]["settings"]["bad_rows"])
    examples = model.task.iter_examples(source, ledger, "ignored", as_json)
    rows = _predict(model, examples, ledger)
    with published_output(args.out) as file:
        for chunk in _chunks(json_lines(rows) if as_json else tab_lines(rows)):
            file.writelines(line.encode() for line in chunk)
            file.flush()
    told = ", ".join(f"{count} {reason}" for reason, count in ledger.skipped.items())
    counts = f"predict: {ledger.used} of {ledger.rows} rows; {told}"
    print(counts.removesuffix("; "), file=sys.stderr)


def _predict(
    model: "FinetunedModel", examples: Iterable[Any], ledger: RowLedger
) -> Iterator[dict[str, Any]]:
    task = model.task
    for chunk in _chunks(examples):
        kept = task.accept(chunk, ledger)
        rows = task.encode(kept, model.tokenizer, ledger)
        for example, prediction in zip(
            kept, task.predict(kept, rows, model.infer(rows)), strict=True
        ):
            yield task.describe(example, prediction)


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, CHUNK_ROWS)):
        yield chunk
