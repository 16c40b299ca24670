"""Bring a model in from another format, or send one out.

--to native writes a model directory {model.safetensors, vocab.txt, architecture.yaml}, which every
--model and --init takes. Every tensor is accounted for; where the other program can run here, both
sides compute the same rows, and the largest difference goes into the stamp.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import make_stamp, write_json
from pipeline.errors import ConfigError
from pipeline.registry import CONVERTERS
from pipeline.spec import ConvertSpec, load_spec
from pipeline.stages.model_directory import (
    describe_model,
    file_names,
    published_folder,
    require_free,
)

if TYPE_CHECKING:
    from pipeline.converters import Converter, PortableModel

FORMATS = "native, uer, huggingface or google"
# Hidden states have size one; rounding makes differences of 1e-6 to 1e-5.
TOLERANCE = 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--from", dest="origin", required=True, metavar="FORMAT", help=FORMATS)
    parser.add_argument("--to", dest="goal", required=True, metavar="FORMAT", help=FORMATS)
    parser.add_argument("--in", dest="source", type=Path, required=True, help="file or directory")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--vocab", type=Path, help="where --in is a file, or holds no vocab.txt")
    parser.add_argument("--spec", default="", help="what --in does not say: YAML or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def run(args: argparse.Namespace) -> None:
    """Read, compare, write, compare, publish."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    spec, _ = load_spec(ConvertSpec, args.spec, args.set)
    reader: Converter = CONVERTERS.get(args.origin, "--from")()
    writer: Converter = CONVERTERS.get(args.goal, "--to")()
    require_free(args.out, file_names(writer))
    model = reader.read(args.source, args.vocab, spec)
    compared = _compare(reader, args.source, model)
    if not model.recorded:
        require_alike(compared, args.source)
    stated = spec.model_dump(mode="json", exclude_defaults=True)
    settings = {"from": reader.name, "to": writer.name, **stated, **_kept(model)}
    with published_folder(args.out, writer.weights) as folder:
        _write(model, writer, folder, settings, compared)
    for line in [*model.notes, *_figures(compared)]:
        print(f"convert: {line}", file=sys.stderr)


def _kept(model: "PortableModel") -> dict[str, Any]:
    """Return what later stages ask of a fine-tuned model's stamp."""
    settings = model.metadata.get("stamp", {}).get("settings", {})
    return {key: settings[key] for key in ("precision", "bad_rows") if key in settings}


def _compare(converter: "Converter", folder: Path, model: "PortableModel") -> dict[str, Any]:
    """Return format -> output -> largest difference, or why nothing was compared."""
    from pipeline.converters.comparing import largest_differences, make_batch, run_model

    if converter.name == "native":
        return {}
    network = model.build()
    batch = make_batch(model.metadata["token_ids"], model.longest())
    theirs = converter.run(folder, batch)
    if isinstance(theirs, str):
        return {converter.name: f"not compared: {theirs}"}
    return {converter.name: largest_differences(run_model(network, batch), theirs, batch)}


def require_alike(compared: Mapping[str, Any], source: Path) -> None:
    """Raise ConfigError if another program computes other hidden states from the source."""
    for name, differences in compared.items():
        if isinstance(differences, Mapping) and not differences["hidden"] <= TOLERANCE:
            raise ConfigError(
                f"{source}: computes other hidden states here than by {name}, by up to "
                f"{differences['hidden']:g}; settings or weights are not what they seem"
            )


def _write(
    model: "PortableModel",
    writer: "Converter",
    folder: Path,
    settings: dict[str, Any],
    compared: dict[str, Any],
) -> None:
    """Write everything into a folder; `compared` takes what the other side computes from it."""
    from pipeline.converters import RECORD

    describe_model(model, folder)
    stamp = make_stamp("convert", settings, model.inputs(), "torch")
    if writer.name == "native":
        if settings["from"] != "native":
            model.metadata["stamp"] = {**stamp, "compared": compared}
        writer.write(model, folder)
        return
    weights = writer.write(model, folder)
    compared |= _compare(writer, folder, model)
    lost = None if writer.has_padding_segment else model.padding_segment()
    record = {
        "stamp": {**stamp, "compared": compared},
        "weights": weights,
        "metadata": model.metadata,
        "padding_segment": lost,
    }
    write_json(folder / RECORD, record)


def _figures(compared: Mapping[str, Any]) -> list[str]:
    """Return what was measured, a line for each format."""
    lines = []
    for name, found in compared.items():
        text = found
        if isinstance(found, Mapping):
            figures = ", ".join(f"{output} {gap:g}" for output, gap in found.items())
            text = f"largest differences {figures}"
        lines.append(f"{name}: {text}")
    return lines
