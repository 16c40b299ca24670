"""Score a fine-tuned model on labelled rows; everything else is in the model's metadata.

States how many rows were read, scored and skipped, and why, and the scores without the rows that
also stand in the training data, or of which a text stands in the corpora of pre-training (--corpus:
as a line, a field or a document, letter by letter). Rows without labels are predicted and not
scored.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import atomic_path, digest_file, make_stamp, write_json
from pipeline.spec import EvaluateSpec, load_spec
from pipeline.stages.predictions import tab_lines
from pipeline.text.overlap import find_texts

if TYPE_CHECKING:
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
    parser.add_argument(
        "--corpus", type=Path, nargs="+", default=[], metavar="FILE", help="texts of pre-training"
    )
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
    overlap = _overlap(model, data.examples, args.corpus)
    predictions = model.task.predict(data.examples, data.rows, model.infer(data.rows))
    if args.predictions:
        _write_predictions(args.predictions, model, data.examples, predictions)
    record = _record(model, data, predictions, spec, overlap)
    # So that the file of predictions can be verified.
    record["predictions"] = digest_file(args.predictions) if args.predictions else None
    write_json(args.out, record)


def _write_predictions(
    path: Path, model: "FinetunedModel", examples: Sequence[Any], predictions: Sequence[Any]
) -> None:
    lines = [model.task.describe(e, p) for e, p in zip(examples, predictions, strict=True)]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(tab_lines(lines))


@dataclass(frozen=True)
class _Overlap:
    """Which examples were seen before: in the training data, in the corpora of pre-training."""

    in_training: Sequence[bool]
    in_corpus: Sequence[bool]
    corpora: Mapping[str, Sequence[str]]
    """Role in the stamp -> digests; empty where no corpus was given."""


def _overlap(model: "FinetunedModel", examples: Sequence[Any], corpora: Sequence[Path]) -> _Overlap:
    import numpy as np

    from pipeline.training.labelled import content_digests

    in_training = np.isin(content_digests(examples), model.seen).tolist()
    found = find_texts(corpora, {text for example in examples for text in example.texts})
    digests: dict[str, list[str]] = {}
    for path in corpora:
        digests.setdefault(f"corpus {path.stem}", []).append(digest_file(path))
    in_corpus = [not found.isdisjoint(example.texts) for example in examples]
    return _Overlap(in_training, in_corpus, digests)


def _record(
    model: "FinetunedModel",
    data: "LabelledSet",
    predictions: Sequence[Any],
    spec: EvaluateSpec,
    overlap: _Overlap,
) -> dict[str, Any]:
    scores = model.task.score(data.examples, predictions)
    metadata = model.metadata
    inputs = {
        "model": metadata["weights"],
        "data": data.digest,
        "vocabulary": metadata["vocabulary"],
        **overlap.corpora,
    }
    return {
        "stamp": make_stamp("evaluate", spec.model_dump(mode="json"), inputs, "torch"),
        "task": metadata["task"]["name"],
        "main_metric": next(iter(scores.metrics)) if scores.scored else None,
        "metrics": scores.metrics if scores.scored else {},
        "counts": _counts(data, scores),
        **scores.details,
        **_fresh_scores(model, data, predictions, overlap),
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


def _fresh_scores(
    model: "FinetunedModel", data: "LabelledSet", predictions: Sequence[Any], overlap: _Overlap
) -> dict[str, Any]:
    """Return the scores without the rows seen in training, in a corpus, or in either."""

    def score(seen: Sequence[bool]) -> dict[str, Any]:
        places = [place for place, known in enumerate(seen) if not known]
        scores = model.task.score(
            [data.examples[place] for place in places], [predictions[place] for place in places]
        )
        metrics = scores.metrics if scores.scored else {}
        return {"repeats": sum(seen), "scored": scores.scored, "metrics": metrics}

    without = {"without_repeats": score(overlap.in_training)}
    if overlap.corpora:
        either = map(or_, overlap.in_training, overlap.in_corpus)
        without |= {"in_corpus": score(overlap.in_corpus), "in_either": score(list(either))}
    return without
