"""Score a fine-tuned model on labelled rows; everything else is in the model's metadata.

States how many rows were read, scored and skipped, and why, and the scores without the rows that
also stand in the training data. Rows without labels are predicted and not scored.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import atomic_path, digest_file, make_stamp, write_json
from pipeline.spec import EvaluateSpec, load_spec
from pipeline.stages.predictions import tab_lines

if TYPE_CHECKING:
    import numpy as np

    from pipeline.tasks import Scores
    from pipeline.training.inference import FinetunedModel
    from pipeline.training.labelled import LabelledSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", default="", help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--model", type=Path, required=True, help="a fine-tuned model")
    parser.add_argument("--vocab", type=Path, help="absent: that of the directory --model")
    parser.add_argument("--data", type=Path, required=True, help="rows in the task's format")
    parser.add_argument("--out", type=Path, required=True, help="the metrics, a JSON file")
    parser.add_argument("--predictions", type=Path, help="a TSV file: text, gold and prediction")


def run(args: argparse.Namespace) -> None:
    """Predict, score and publish; the predictions first, the metrics last."""
    spec, options = load_spec(EvaluateSpec, args.spec, args.set)
    # Read when the arithmetic libraries load, so set before torch is imported.
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")
    from pipeline.training.inference import open_finetuned
    from pipeline.training.labelled import encode_examples, read_examples
    from pipeline.training.loop import find_device, prepare_torch

    device = find_device(options.device)
    prepare_torch(device)
    model = open_finetuned(args.model, args.vocab, device)
    policy = spec.bad_rows or model.metadata["stamp"]["settings"]["bad_rows"]
    file = read_examples(type(model.task), args.data, policy, "optional")
    data = encode_examples(model.task, file, file.examples, model.tokenizer)
    predictions = model.task.predict(data.examples, data.rows, model.infer(data.rows))
    if args.predictions:
        _write_predictions(args.predictions, model, data.examples, predictions)
    record = _record(model, data, predictions, spec)
    # So that the file of predictions can be verified.
    record["predictions"] = digest_file(args.predictions) if args.predictions else None
    write_json(args.out, record)


def _write_predictions(
    path: Path, model: "FinetunedModel", examples: Sequence[Any], predictions: Sequence[Any]
) -> None:
    lines = [model.task.describe(e, p) for e, p in zip(examples, predictions, strict=True)]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(tab_lines(lines))


def _record(
    model: "FinetunedModel",
    data: "LabelledSet",
    predictions: Sequence[Any],
    spec: EvaluateSpec,
) -> dict[str, Any]:
    scores = model.task.score(data.examples, predictions)
    metadata = model.metadata
    inputs = {
        "model": metadata["weights"],
        "data": data.digest,
        "vocabulary": metadata["vocabulary"],
    }
    return {
        "stamp": make_stamp("evaluate", spec.model_dump(mode="json"), inputs, "torch"),
        "task": metadata["task"]["name"],
        "main_metric": next(iter(scores.metrics)) if scores.scored else None,
        "metrics": scores.metrics if scores.scored else {},
        "counts": _counts(data, scores),
        **scores.details,
        "without_repeats": _without_repeats(model, data, predictions),
        "model": metadata["weights"],
        "data": data.digest,
    }


def _counts(data: "LabelledSet", scores: "Scores") -> dict[str, Any]:
    """Return the books: rows = scored + skipped, and odd things about rows that were scored."""
    skipped = {**data.ledger.skipped, **scores.unscored}
    return {
        "rows": data.ledger.rows,
        "scored": scores.scored,
        "skipped": dict(sorted(skipped.items())),
        **dict(sorted(data.ledger.noted.items())),
    }


def _without_repeats(
    model: "FinetunedModel", data: "LabelledSet", predictions: Sequence[Any]
) -> dict[str, Any]:
    """Return the scores of the examples whose texts the model was not trained on."""
    fresh = _fresh(data.examples, model.seen)
    scores = model.task.score(
        [example for example, kept in zip(data.examples, fresh, strict=True) if kept],
        [prediction for prediction, kept in zip(predictions, fresh, strict=True) if kept],
    )
    return {
        "repeats": len(fresh) - sum(fresh),
        "scored": scores.scored,
        "metrics": scores.metrics if scores.scored else {},
    }


def _fresh(examples: Sequence[Any], seen: "np.ndarray") -> list[bool]:
    import numpy as np

    from pipeline.training.labelled import content_digests

    return (~np.isin(content_digests(examples), seen)).tolist()
