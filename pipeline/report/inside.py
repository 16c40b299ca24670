"""What probes saw inside a recipe's model: results/6_probe, checked to be about that very model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.artifacts import digest_file, read_json_artifact, read_tensor_stamp
from pipeline.errors import ArtifactError, ConfigError, DataError, printable
from pipeline.report.results import Answers, parse
from pipeline.strict import parse_json

# Probe -> field of Answers that takes its rows; of tags only sums are kept.
FIELDS = {"cloze": "gaps", "generate": "continuations", "neighbours": "neighbours", "tags": "tags"}


def probe_files(recipe: str, probe: str) -> tuple[str, str]:
    """Return the record and the rows of a recipe's probe, below the results folder."""
    return f"6_probe/{recipe}/{probe}.json", f"6_probe/{recipe}/{probe}.jsonl"


def read_answers(path: Path, average: Path) -> Answers:
    """Return what a probe found: its record at `path`, its rows beside it.

    average: the recipe's model; where it is missing, the answers stand unchecked. Raises
    ArtifactError for damage and for answers of another model, ConfigError for another probe.
    """
    record = read_json_artifact(path, "probe")
    stamp = record["stamp"]
    kind = stamp["settings"].get("probe")
    if kind not in FIELDS:
        shown = ", ".join(FIELDS)
        raise ConfigError(f"{path}: of probe {printable(kind)!r}; a report shows {shown}")
    rows = path.with_suffix(".jsonl")
    if (found := digest_file(rows)) != (stated := record.get("output")):
        raise ArtifactError(
            f"{rows}: digest {found[:12]}..., {path.name} says {str(stated)[:12]}...; edited or "
            "damaged, run the probe again"
        )
    model = str(stamp["inputs"].get("model"))
    values = {"name": path.stem, "probe": kind, "model": model, "checked": average.exists()}
    if values["checked"]:
        _require_model(path, model, average)
    return parse(Answers, {**values, **_shown(kind, _rows(rows), record["books"])}, str(rows))


def _require_model(path: Path, model: str, average: Path) -> None:
    weights = read_tensor_stamp(average, verify=False)["weights"]
    if weights != model:
        raise ArtifactError(
            f"{path}: answers of model {model[:12]}..., but {average} is {weights[:12]}...; run "
            "the probe again"
        )


def _rows(path: Path) -> list[dict[str, Any]]:
    # Lines end at \n only, as they were written.
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    return [parse_json(line, f"{path}:{n}", DataError) for n, line in enumerate(lines, 1) if line]


def _shown(
    kind: str, rows: Sequence[Mapping[str, Any]], books: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the field of Answers that a kind of probe fills."""
    return {FIELDS[kind]: {**books, "by_tag": _by_tag(rows)} if kind == "tags" else rows}


def _by_tag(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(row["tag"], []).append(row["share"])
    return [
        {"tag": tag, "words": len(found), "share": fmean(found)} for tag, found in shares.items()
    ]
