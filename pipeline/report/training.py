"""The records of a recipe's checkpoints, joined to one account of its pre-training."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import tensor_header
from pipeline.report.results import HeldOut, Point, Training

CURVE_POINTS = 240


def join_training(records: Sequence[Mapping[str, Any]]) -> Training:
    """Return the training that the records of checkpoints tell, ascending by step."""
    last = records[-1]
    settings = last["stamp"]["settings"]
    return Training(
        settings=settings,
        targets=[target["name"] for target in settings["targets"]],
        encoder=settings["architecture"]["encoder"]["name"],
        step=last["step"],
        total_steps=last["total_steps"],
        tokens=last["tokens"],
        epochs=last["epoch"],
        loss=last["loss"],
        metrics=last["metrics"],
        curve=thin_out([Point(**line) for record in records for line in record["curve"]]),
        held_out=[_held_out(record) for record in records if record["held_out"]],
    )


def _held_out(record: Mapping[str, Any]) -> HeldOut:
    figures = record["held_out"]
    metrics = {key: value for key, value in figures.items() if key.endswith("_accuracy")}
    return HeldOut(
        step=record["step"], tokens=record["tokens"], loss=figures["loss"], metrics=metrics
    )


def count_parameters(weights: Path) -> int:
    """Return the number of weights in a safetensors file."""
    header, _, _ = tensor_header(weights)
    return sum(math.prod(tensor["shape"]) for tensor in header.values())


def thin_out(points: Iterable[Point]) -> list[Point]:
    """Return at most CURVE_POINTS points: means over equal runs of lines, ascending by step.

    A line that a repeated segment wrote again counts once.
    """
    lines = [point for _, point in sorted({point.step: point for point in points}.items())]
    size = math.ceil(len(lines) / CURVE_POINTS) or 1
    groups = [lines[start : start + size] for start in range(0, len(lines), size)]
    return [
        group[-1].model_copy(update={"loss": sum(point.loss for point in group) / len(group)})
        for group in groups
    ]
