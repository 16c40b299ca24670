"""Average checkpoints of one run: exact, and the same bytes for any order of the models.

With one model the file is copied as it is.
"""

import argparse
from pathlib import Path
from typing import Any

from pipeline.artifacts import first_difference, make_stamp, read_tensor_stamp
from pipeline.errors import ConfigError, UsageError

# What must be equal in all models; steps and stamps differ.
_SAME = ("architecture", "targets", "vocabulary", "token_ids", "tokenizer", "lowercase")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    """Publish the mean of the models."""
    from pipeline.training.averaging import average_tensors
    from pipeline.training.checkpoint import model_file, save_tensors

    paths = sorted(model_file(path) for path in args.models)
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("--models: a model is given twice")
    metadata = [read_tensor_stamp(path) for path in paths]
    _check_alike(paths, metadata)
    tensors = average_tensors(paths)
    members = sorted(values["weights"] for values in metadata)
    steps = sorted(values.get("step", 0) for values in metadata)
    merged = {key: value for key, value in metadata[0].items() if key not in {"weights", "step"}}
    merged["stamp"] = make_stamp("average", {"steps": steps}, {"models": members})
    save_tensors(args.out, tensors, merged)


def _check_alike(paths: list[Path], metadata: list[dict[str, Any]]) -> None:
    first = {key: metadata[0].get(key) for key in _SAME}
    for path, values in zip(paths[1:], metadata[1:], strict=True):
        if different := first_difference({key: values.get(key) for key in _SAME}, first):
            raise ConfigError(f"{path}: cannot be averaged with {paths[0]}: {different}")
