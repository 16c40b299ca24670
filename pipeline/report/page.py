"""The page: all tables and plots of a report as one HTML document that asks nobody for anything.

Everything from files is escaped by the template engine; there is no script on the page at all.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import __version__
from pipeline.errors import printable
from pipeline.recipes import Start
from pipeline.report.books import books_of, label_counts, notes_of
from pipeline.report.chain import STAGE_ORDER, chain_of, label_of
from pipeline.report.costs import plan_beside
from pipeline.report.filters import FILTERS, signed
from pipeline.report.overlap import PLACES, corpus_note, overlaps
from pipeline.report.plots import (
    CostPoint,
    ScoreRow,
    plot_cost,
    plot_curve,
    plot_scores,
)
from pipeline.report.results import RecipeResult, Run
from pipeline.report.scores import best
from pipeline.report.seal import NO_DIGEST, seal
from pipeline.report.speeds import ratio_rows
from pipeline.report.tables import (
    STARTS,
    Headline,
    PublishedRow,
    Report,
    headlines,
    label_tables,
    pretraining_seconds,
    published,
    row_books,
    stage_costs,
)

# (template, title, what it shows: left out where all of it is empty).
SECTIONS = (
    ("scores", "Scores", ("tables",)),
    ("published", "Published beside measured", ("published", "elsewhere", "unavailable")),
    ("runs", "Every run", ("tables",)),
    ("curves", "Pre-training", ("curves",)),
    ("cost", "Accuracy against cost", ("cost_plots",)),
    ("inside", "Inside the models", ("inside",)),
    ("data", "Text and vocabulary", ("fetched", "instance_sets", "vocabularies")),
    ("mistakes", "Misjudged rows", ("mistakes",)),
    ("lineage", "Lineage", ("chains",)),
    ("settings", "Settings and versions", ("recipes",)),
    ("run", "This run", ("costs", "speeds", "ratios")),
)
TEMPLATES = Path(__file__).parent / "templates"


def render_page(report: Report) -> str:
    """Return the HTML document; the same bytes for the same report."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.filters["groupby_recipe"] = _by_recipe
    environment.globals.update(
        books_of=books_of, notes_of=notes_of, label_of=label_of, label_counts=label_counts
    )
    environment.globals.update(overlap_places=PLACES, corpus_note=corpus_note)
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page = environment.get_template("page.html").render(
        report=report,
        style=Markup(style),
        version=__version__,
        digest=NO_DIGEST,
        **_content(report),
    )
    return seal(page)


def _content(report: Report) -> dict[str, Any]:
    """Return everything the templates show, by name."""
    tables = headlines(report)
    rows = published(report)
    content = {
        "facts": _facts(report, tables, rows),
        "recipes": report.recipes,
        "tables": tables,
        "published": rows,
        "sources": sorted({row.figure.source for row in rows}),
        "elsewhere": [recipe for recipe in report.recipes if recipe.measured_elsewhere],
        "unavailable": [recipe for recipe in report.recipes if recipe.recipe.unavailable],
        "score_plots": {table.dataset: _plot_scores(table) for table in tables},
        "cost_plots": [plot for table in tables if (plot := _plot_costs(table, "tokens"))],
        "time_plots": [plot for table in tables if (plot := _plot_costs(table, "seconds"))],
        "row_books": {table.dataset: row_books(report, table.dataset) for table in tables},
        "overlaps": {table.dataset: overlaps(report, table.dataset) for table in tables},
        "labels": {table.dataset: label_tables(report, table.dataset) for table in tables},
        "curves": [
            (recipe, plot_curve(recipe.training, recipe.recipe.name))
            for recipe in report.recipes
            if recipe.training and recipe.training.curve
        ],
        "inside": [recipe for recipe in report.recipes if recipe.answers],
        "fetched": _fetched(report.recipes),
        "instance_sets": _distinct(report.recipes, "instances"),
        "vocabularies": [
            (names, record["name"], _vocabulary_facts(record))
            for names, record in _distinct(report.recipes, "vocabulary")
        ],
        "mistakes": list(_mistakes(report, tables)),
        "chains": [(recipe, chain_of(recipe)) for recipe in report.recipes if recipe.lineage],
        "plans": [(recipe, found) for recipe in report.recipes if (found := plan_beside(recipe))],
        "costs": stage_costs(report, STAGE_ORDER),
        "speeds": report.speeds or any(recipe.tokens_per_second for recipe in report.recipes),
        "ratios": ratio_rows(report.spec.ratios, report.speeds),
        "versions": _versions(report.recipes),
    }
    shown = [(name, title) for name, title, needs in SECTIONS if any(content[key] for key in needs)]
    return {"sections": shown, **content}


def _facts(
    report: Report, tables: Sequence[Headline], rows: Sequence[PublishedRow]
) -> list[tuple[str, str, str]]:
    """Return (name, figure, what it is of) for the head of the page."""
    runs = [run for recipe in report.recipes for run in recipe.runs]
    scored = sum(run.score is not None for run in runs)
    facts = [
        ("Recipes", str(len(report.recipes)), ""),
        ("Data sets", str(len(tables)), ""),
        ("Runs scored", f"{scored:,}", f"of {len(runs):,}"),
    ]
    gain = best(row.gain for table in tables for row in table.rows)
    if gain is not None:
        facts.append(("Largest gain from pre-training", signed(gain), "points"))
    if rows:
        met = sum(row.verdict == "reproduced" for row in rows)
        facts.append(("Published figures reproduced", str(met), f"of {len(rows)}"))
    return facts


def _by_recipe(rows: Iterable[PublishedRow]) -> list[list[PublishedRow]]:
    """Return the rows of each recipe together, in the order in which they come."""
    return [list(group) for _, group in groupby(rows, lambda row: row.recipe.recipe.name)]


def _mistakes(report: Report, tables: Sequence[Headline]) -> Iterator[tuple[RecipeResult, Run]]:
    """Yield the first run with misjudged rows of each recipe on each data set."""
    for table in tables:
        for recipe in report.on(table.dataset):
            starts = (recipe.select(table.dataset, start) for start in reversed(STARTS))
            if run := next((run for runs in starts for run in runs if run.mistakes), None):
                yield recipe, run


def _plot_scores(table: Headline) -> Markup | None:
    """Return the plot of all runs on a data set, None if none has a score."""
    rows = []
    for row in table.rows:
        figures = [f for f in row.recipe.recipe.published if f.dataset == table.dataset]
        ticks = [
            (f.value, f.start == "random") for f in figures if not f.metric and f.part == "test"
        ]
        before, after = (_finite_points(row.recipe, table.dataset, start) for start in STARTS)
        if before or after:
            rows.append(ScoreRow(row.recipe.recipe.name, before, after, row.gain, ticks))
    return plot_scores(rows, table.metric, table.dataset) if rows else None


def _finite_points(recipe: RecipeResult, dataset: str, start: Start) -> list[float]:
    points = [run.points for run in recipe.select(dataset, start)]
    return [value for value in points if value is not None and math.isfinite(value)]


def _plot_costs(table: Headline, unit: str) -> tuple[str, Markup] | None:
    """Return (data set, plot) of scores against tokens, or seconds of this run."""
    points = []
    for row in table.rows:
        tokens = row.recipe.training.tokens if row.recipe.training else 0
        cost = tokens if unit == "tokens" else pretraining_seconds(row.recipe)
        means = [row.pretrained.mean, row.random.mean]
        mean, random = (m if m is not None and math.isfinite(m) else None for m in means)
        if cost and mean is not None:
            sd = row.pretrained.spread or 0.0
            points.append(CostPoint(row.recipe.recipe.name, cost, mean, sd, random))
    return (table.dataset, plot_cost(points, table.metric, unit, table.dataset)) if points else None


def _distinct(
    recipes: Iterable[RecipeResult], field: str
) -> list[tuple[list[str], dict[str, Any]]]:
    """Return (recipes that share it, record) of each different record, in order."""
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for recipe in recipes:
        if record := getattr(recipe, field):
            key = json.dumps(record, sort_keys=True)
            groups.setdefault(key, ([], record))[0].append(recipe.recipe.name)
    return list(groups.values())


def _fetched(recipes: Iterable[RecipeResult]) -> list[dict[str, Any]]:
    """Return the ledgers of all texts, each once, by name."""
    ledgers = {
        (ledger["name"], "parts" in ledger, ledger.get("text")): ledger
        for recipe in recipes
        for ledger in recipe.fetched
    }
    return sorted(ledgers.values(), key=lambda ledger: (ledger["name"], "parts" in ledger))


def _vocabulary_facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of what a vocabulary's record tells, in the order of interest."""
    settings = record.get("stamp", {}).get("settings", {})
    facts = [("Tokens", f"{record['size']:,}"), ("Tokenizer", str(settings.get("tokenizer", "")))]
    if "coverage" in record:
        facts.append(("Coverage of its corpora", f"{record['coverage']:.3%}"))
        facts.append(("Unknown", f"{record['unknown']:,} of {record['tokens']:,}"))
        facts.append(("Unused entries", f"{record['unused']:,}"))
    if top := record.get("top_unknown"):
        facts.append(("Most often unknown", " ".join(printable(c) for c, _ in top)))
    return facts


def _versions(recipes: Iterable[RecipeResult]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for recipe in recipes:
        for package, versions in recipe.versions.items():
            found.setdefault(package, set()).update(versions)
    return {package: sorted(versions) for package, versions in sorted(found.items())}
