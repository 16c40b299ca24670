"""Look into a trained model: fill gaps, continue texts, write features, find neighbours, inspect.

`probe NAME --help` shows what a probe does and its options, which are given with --set.
"""

import argparse
import contextlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.artifacts import digest_file, write_json
from pipeline.errors import UsageError
from pipeline.registry import PROBES
from pipeline.spec import load_spec
from pipeline.stages.model_directory import (
    describe_model,
    file_names,
    published_folder,
    require_free,
)
from pipeline.stages.predictions import STANDARD, json_lines, published_output, tab_lines
from pipeline.text.tables import is_json_lines
from pipeline.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


class _ProbeHelp(argparse.Action):
    """Shows a probe's own description and options; the probe is imported only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        probe = PROBES.get(parser.prog.rpartition(" ")[2])
        reads = f"\n--in: {probe.reads}" if probe.reads else ""
        parser.description = f"{inspect.getdoc(probe)}{reads}"
        parser.epilog = "options of --set:\n" + "\n".join(_options(probe.Config))
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.print_help()
        parser.exit()


def _options(config: Any) -> Iterator[str]:
    for name, field in config.model_fields.items():
        text = " ".join((field.description or "").split())
        yield f"  {name} (default {field.default!r})\n      {text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line, one sub-command for each file of pipeline/probes."""
    package = Path(__file__).parents[1] / "probes"
    probes = parser.add_subparsers(dest="probe", required=True, metavar="PROBE")
    for module in pkgutil.iter_modules([str(package)]):
        probe = probes.add_parser(module.name, add_help=False)
        probe.add_argument("-h", "--help", action=_ProbeHelp, nargs=0)
        probe.add_argument("--spec", default="", help="options: a YAML file or inline JSON")
        probe.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        probe.add_argument("--model", type=Path, help="a .safetensors file or a model directory")
        probe.add_argument("--vocab", type=Path, help="absent: that of the directory --model")
        probe.add_argument("--in", type=Path, dest="source", help="what is read; -: stdin")
        probe.add_argument("--line", action="append", default=[], help="instead: a line; repeat it")
        probe.add_argument("--out", type=Path, default=STANDARD, help="-: stdout (default)")
        probe.add_argument("--format", choices=["tsv", "jsonl"], help="of rows; default by --out")
        probe.add_argument("--books", type=Path, help="JSON file for counts and scores")


def run(args: argparse.Namespace) -> None:
    """Open the model, run the probe, publish what it wrote; tell the books on stderr.

    The books name the digest of the output, so that it can be verified.
    """
    # Read when the arithmetic libraries load, so set before torch is imported.
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")
    from pipeline.probes import Request
    from pipeline.training.loop import find_device, prepare_torch

    probe_class = PROBES.get(args.probe)
    config, options = load_spec(probe_class.Config, args.spec, args.set)
    device = find_device(options.device)
    prepare_torch(device)
    source, given = _source(args, probe_class.reads)
    probe = probe_class(config, Request(args.model, args.vocab, source, device, given))
    with contextlib.ExitStack() as published:
        output = _Output(args, published)
        books = probe.run(output)
        if args.books:
            record = {"stamp": probe.stamp(), "books": books, "output": output.digest()}
            write_json(args.books, record)
    told = ", ".join(f"{name} {_figure(value)}" for name, value in books.items())
    print(f"probe {args.probe}: {told}", file=sys.stderr)


def _source(args: argparse.Namespace, reads: str) -> tuple[Path | None, tuple[str, ...]]:
    """Return (the file to read, lines given inline); neither stands for standard input."""
    if not reads and (args.source is not None or args.line):
        option = f"--in {args.source}" if args.source is not None else "--line"
        raise UsageError(f"{option}: {args.probe} reads nothing but the model")
    if args.source is not None and args.line:
        raise UsageError(f"--in {args.source} and --line: give one of them")
    if any("\n" in line for line in args.line):
        raise UsageError("--line: a line break in it; give --line for each line")
    return (None if args.source == STANDARD else args.source), tuple(args.line)


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Output:
    """Standard output, or a file that is published when `published` closes without an error."""

    def __init__(self, args: argparse.Namespace, published: contextlib.ExitStack):
        self.path = None if args.out == STANDARD else args.out
        named_json = self.path is not None and is_json_lines(self.path)
        self._json = args.format == "jsonl" if args.format else named_json
        self._published = published
        self._file: BinaryIO | None = None

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows as they come: TSV with a header, or JSON lines."""
        self.write_text(json_lines(rows) if self._json else tab_lines(rows))

    def write_text(self, lines: Iterable[str]) -> None:
        """Write lines, which end in a line end, as they come."""
        file = self.open_binary()
        for line in lines:
            file.write(line.encode())
            if self.path is None:
                file.flush()

    def write_model(
        self, tensors: "dict[str, Tensor]", metadata: dict[str, Any], vocabulary: Vocabulary
    ) -> None:
        """Write a model directory, whole or not at all. Raises UsageError without --out."""
        from pipeline.converters import PortableModel
        from pipeline.converters.native import NativeConverter

        if self.path is None:
            raise UsageError("--out is missing; give the directory of the model")
        writer = NativeConverter()
        require_free(self.path, file_names(writer))
        model = PortableModel(tensors, metadata, vocabulary, metadata["weights"])
        folder = self._published.enter_context(published_folder(self.path, writer.weights))
        describe_model(model, folder)
        writer.write(model, folder)

    def open_binary(self) -> BinaryIO:
        """Return a file to write to; the output that appears when all went well."""
        self._file = self._published.enter_context(published_output(self.path or STANDARD))
        return self._file

    def digest(self) -> str | None:
        """Return the digest of the file that is to appear; None for all else."""
        if self.path is None or self._file is None:
            return None
        self._file.flush()
        return digest_file(Path(self._file.name))
