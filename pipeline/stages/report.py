"""Show results on one page: scores over seeds, curves, ledger, lineage, cost; nothing is computed.

The HTML file asks nobody for anything and is the same, byte for byte, for the same files. What is
missing is shown as a gap. Without a spec, the page shows whatever has results.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.artifacts import write_json, write_text
from pipeline.config import load_catalog
from pipeline.errors import MissingError, UsageError
from pipeline.report.exports import add_figures, read_figures, to_json, to_markdown
from pipeline.report.gather import Gatherer, discover
from pipeline.report.page import render_page
from pipeline.report.results import RecipeResult
from pipeline.report.scores import in_words, signed
from pipeline.report.settings import ReportSpec
from pipeline.report.speeds import MeasuredSpeed, read_speeds
from pipeline.report.tables import Report, headlines
from pipeline.spec import load_spec
from pipeline.stages.check import chosen_recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", default="", help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, required=True, help="results folder of a workflow")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where texts are fetched")
    parser.add_argument("--only", nargs="+", default=[], help="of the recipes found, these")
    parser.add_argument("--config", type=Path, help="folder of settings that describes them")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="JSON forms of reports")
    parser.add_argument("--speeds", type=Path, nargs="*", default=[], help="measured speeds, JSON")
    parser.add_argument("--out", type=Path, required=True, help="the page, report.html")
    parser.add_argument("--markdown", type=Path, help="also the tables, as Markdown")
    parser.add_argument("--json", type=Path, help="also everything, as JSON")


def run(args: argparse.Namespace) -> None:
    """Write the page, its other forms if asked, and the headline on stdout."""
    spec, _ = load_spec(ReportSpec, args.spec, args.set)
    if args.config:
        spec = _described(spec, args.config, args.only)
    if not args.results.is_dir() and not args.figures:
        raise MissingError(f"{args.results}: no such folder; run the workflow first")
    outputs = [path for path in (args.out, args.markdown, args.json) if path]
    if len(set(outputs)) < len(outputs):
        raise UsageError("--out, --markdown and --json: give each a name of its own")
    report = _collect(spec, args)
    for gap in report.gaps:
        print(f"warning: {args.results / gap}: missing; shown as a gap", file=sys.stderr)
    page = render_page(report)
    if args.json:
        write_json(args.json, to_json(report))
    if args.markdown:
        write_text(args.markdown, to_markdown(report))
    write_text(args.out, page)
    _print_headlines(report)


def _described(spec: ReportSpec, config: Path, only: Sequence[str]) -> ReportSpec:
    """Return a spec with the recipes, their data sets and what is published, from config/."""
    if spec.recipes:
        raise UsageError("--config: --spec has recipes too; give one of them")
    catalog = load_catalog(config)
    described = ReportSpec(**catalog.report_spec(chosen_recipes(catalog, only)))
    fields = ("recipes", "datasets", "speed", "ratios")
    return spec.model_copy(update={field: getattr(described, field) for field in fields})


def _collect(spec: ReportSpec, args: argparse.Namespace) -> Report:
    """Return what is to be shown. Raises MissingError if there is nothing at all."""
    gatherer = Gatherer(args.results, args.data, spec.examples)
    wanted = spec.recipes or discover(args.results)
    if unknown := sorted(set(args.only) - {recipe.name for recipe in wanted}):
        raise MissingError(f"--only {unknown[0]}: no result of such a recipe in {args.results}")
    own = [gatherer.read(r) for r in wanted if r.name in args.only or not args.only]
    others = [figures for path in args.figures for figures in read_figures(path)]
    recipes = add_figures(own, others, listed=bool(spec.recipes))
    _require_results(recipes, args.results)
    adopted = {recipe.recipe.name for recipe in recipes if recipe.measured_elsewhere}
    gaps = [gap for name, gap in gatherer.gaps if name not in adopted]
    return Report(spec, recipes, list(dict.fromkeys(gaps)), _speeds(spec, args.speeds))


def _speeds(spec: ReportSpec, files: Sequence[Path]) -> list[MeasuredSpeed]:
    """Return measured speeds: of the networks that the listed recipes and ratios name, or all."""
    named = {recipe.architecture for recipe in spec.recipes}
    named |= {name for ratio in spec.ratios for name in (ratio.model, ratio.than)}
    speeds = [speed for path in files for speed in read_speeds(path)]
    return [speed for speed in speeds if speed.model in named or not spec.recipes]


def _require_results(recipes: Sequence[RecipeResult], results: Path) -> None:
    """Raise MissingError if none of the recipes that can run here has a result."""
    expected = [recipe for recipe in recipes if not recipe.recipe.unavailable]
    runs = [run for recipe in expected for run in recipe.runs]
    if expected == [] != recipes or any(run.result for run in runs):
        return
    if not any(recipe.has_results for recipe in expected):
        first = results / runs[0].place if runs else results
        raise MissingError(f"{first}: no result of any recipe is there; run the workflow first")
    if runs:
        others = f", nor are the other {len(runs) - 1} metrics files" if runs[1:] else ""
        raise MissingError(
            f"{results / runs[0].place}: no such file{others}; run the workflow first"
        )


def _print_headlines(report: Report) -> None:
    """Print the headline tables, with colour on a terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    for headline in headlines(report):
        title = f"{headline.dataset}: {headline.metric} (%)"
        table = Table(title=title, title_justify="left", box=None)
        table.add_column("recipe")
        for name in ("random start", "pre-trained", "gain", "runs"):
            table.add_column(name, justify="right")
        for row in headline.rows:
            runs = row.random.count + row.pretrained.count
            expected = row.random.expected + row.pretrained.expected
            means = [in_words(row.random), in_words(row.pretrained)]
            cells = [row.recipe.recipe.name, *means, signed(row.gain), f"{runs}/{expected}"]
            table.add_row(*cells, style="bold" if row.clear else None)
        console.print(table)
