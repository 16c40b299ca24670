"""The report in other forms: Markdown for a repository, JSON for programs and for later reports."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import make_stamp, read_json_artifact
from pipeline.errors import DataError
from pipeline.report.overlap import PLACES, OverlapRow, overlaps
from pipeline.report.results import RecipeResult, parse
from pipeline.report.scores import Summary, in_words, signed
from pipeline.report.tables import Headline, HeadlineRow, Report, headlines, published


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values with a stamp; NaN is written as the string `NaN`."""
    inputs: dict[str, list[str]] = {}
    for recipe in report.recipes:
        role = "figures" if recipe.measured_elsewhere else "metrics"
        digests = [run.digest or run.result.model for run in recipe.runs if run.result]
        inputs.setdefault(role, []).extend(digests)
    return {
        "stamp": make_stamp("report", report.spec.model_dump(mode="json"), inputs),
        "headline": [_headline_json(table) for table in headlines(report)],
        "overlap": [
            {"dataset": table.dataset, "rows": list(map(_overlap_json, rows))}
            for table in headlines(report)
            if (rows := overlaps(report, table.dataset))
        ],
        "published": [
            {
                "recipe": row.recipe.recipe.name,
                **row.figure.model_dump(mode="json"),
                "measured": _summary_json(row.measured),
                "difference": _json_number(row.difference),
                "verdict": row.verdict,
            }
            for row in published(report)
        ],
        "speeds": [speed.model_dump(mode="json") for speed in report.speeds],
        # By way of text: only there pydantic writes NaN as a string.
        "recipes": [json.loads(recipe.model_dump_json()) for recipe in report.recipes],
    }


def _headline_json(table: Headline) -> dict[str, Any]:
    rows = [
        {
            "recipe": row.recipe.recipe.name,
            "random": _summary_json(row.random),
            "pretrained": _summary_json(row.pretrained),
            "gain": _json_number(row.gain),
            "clear": row.clear,
        }
        for row in table.rows
    ]
    return {"dataset": table.dataset, "metric": table.metric, "rows": rows}


def _overlap_json(row: OverlapRow) -> dict[str, Any]:
    shares: dict[str, Any] = {
        place: {"rows": share.rows, "score_without": _json_number(share.score)}
        for place, share in row.shares.items()
    }
    known = {"recipe": row.recipe, "start": row.start, "scored": row.scored}
    return {**known, "score": _json_number(row.score), **shares}


def _summary_json(summary: Summary) -> dict[str, Any]:
    return {
        "mean": _json_number(summary.mean),
        "sd": _json_number(summary.spread),
        "runs": summary.count,
        "expected": summary.expected,
    }


def _json_number(value: float | None) -> float | str | None:
    return "NaN" if value is not None and math.isnan(value) else value


def read_figures(path: Path) -> list[RecipeResult]:
    """Return the recipes of a report's JSON form, marked as measured elsewhere.

    Raises ArtifactError for a damaged file, ConfigError for one of another stage.
    """
    record = read_json_artifact(path, "report")
    if not isinstance(record.get("recipes"), list):
        raise DataError(f"{path}: no list of recipes; not the JSON form of a report")
    return [
        parse(RecipeResult, {**values, "measured_elsewhere": True}, f"{path}: recipes.{position}")
        for position, values in enumerate(record["recipes"])
    ]


def add_figures(
    own: Sequence[RecipeResult], others: Sequence[RecipeResult], listed: bool
) -> list[RecipeResult]:
    """Return `own` results, those that are empty replaced by others' of the same name.

    listed: the recipes were asked for by name; otherwise others' recipes are added at the end.
    """
    known = {other.recipe.name: other for other in others}
    merged = [result if result.has_results else _adopt(result, known) for result in own]
    names = {result.recipe.name for result in own}
    return merged + [other for name, other in known.items() if not listed and name not in names]


def _adopt(result: RecipeResult, known: dict[str, RecipeResult]) -> RecipeResult:
    """Return the other's result under the recipe that was asked for, with its published figures.

    The command stays that which made the figures, where their file tells.
    """
    other = known.get(result.recipe.name)
    if other is None:
        return result
    command = other.recipe.command or result.recipe.command
    return other.model_copy(
        update={"recipe": result.recipe.model_copy(update={"command": command})}
    )


def to_markdown(report: Report) -> str:
    """Return headline and published tables as Markdown."""
    lines = [f"# {_plain(report.spec.title)}", ""]
    for table in headlines(report):
        lines += [
            f"## {_plain(table.dataset)}: {_plain(table.metric)} (%)",
            "",
            "| recipe | random start | pre-trained | gain | runs |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(_headline_line(row) for row in table.rows),
            "",
            *_overlap_lines(overlaps(report, table.dataset)),
        ]
    if rows := published(report):
        lines += [
            "## Published beside measured",
            "",
            "| recipe | data set | start | published | measured | difference | verdict | source |",
            "| --- | --- | --- | ---: | ---: | ---: | --- | --- |",
        ]
        for row in rows:
            figure = row.figure
            dataset = figure.dataset if figure.part == "test" else f"{figure.dataset} {figure.part}"
            cells = [row.recipe.recipe.name, dataset, figure.start, f"{figure.value:g}"]
            cells += [in_words(row.measured), signed(row.difference)]
            lines.append(_row([*cells, row.verdict, figure.source]))
        lines.append("")
    if report.gaps:
        lines += ["## Missing files", "", *(f"- {_plain(gap)}" for gap in report.gaps), ""]
    return "\n".join(lines)


def _headline_line(row: HeadlineRow) -> str:
    count = f"{row.random.count + row.pretrained.count}"
    expected = f"{row.random.expected + row.pretrained.expected}"
    gain = f"**{signed(row.gain)}**" if row.clear else signed(row.gain)
    means = [in_words(row.random), in_words(row.pretrained)]
    return _row([row.recipe.recipe.name, *means, gain, f"{count}/{expected}"])


def _overlap_lines(rows: Sequence[OverlapRow]) -> list[str]:
    """Return a table of the test rows seen before, empty where no run tells."""
    if not rows:
        return []
    names = [f"rows in {place} | score without" for place in PLACES.values()]
    lines = [
        f"| recipe | start | rows | score | {' | '.join(names)} |",
        f"| --- | --- |{' ---: |' * (2 + 2 * len(names))}",
    ]
    for row in rows:
        cells = [row.recipe, row.start, f"{row.scored:,}", _score(row.score)]
        for share in row.shares.values():
            cells += ["" if share.rows is None else f"{share.rows:,}", _score(share.score)]
        lines.append(_row(cells))
    return ["Test rows seen before, and the mean score without them:", "", *lines, ""]


def _score(value: float | None) -> str:
    return "" if value is None else "NaN" if math.isnan(value) else f"{value:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


_MARKDOWN = str.maketrans({"|": "\\|", "<": "&lt;", "&": "&amp;", "`": "\\`", "[": "\\["})


def _plain(text: str) -> str:
    """Return text that stays text in a Markdown table: one line, no markup of its own."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).translate(_MARKDOWN)
