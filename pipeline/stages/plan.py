"""Predict, before anything runs, what recipes take: jobs, tokens, time, memory and disk a stage.

Speed and memory come from a rehearsal: a few seconds of the trainer's own steps on this machine.
RECIPE may be `zoo`: all of config/zoo. With --tokens-per-second, of a device that is not at hand,
nothing is rehearsed, and every model is taken to run at that speed. Where jobs of a recipe have run
here, what they took stands beside the plan.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.artifacts import make_stamp, write_json
from pipeline.catalog import Catalog
from pipeline.config import load_catalog
from pipeline.report.costs import compare, read_resources
from pipeline.report.results import Comparison, Resources
from pipeline.report.settings import ReportedRecipe
from pipeline.spec import FinetuneSpec, PretrainSpec
from pipeline.stages.check import chosen_recipes, outline_recipe, vocab_size
from pipeline.stages.planning import Plan, Speed, StageCost, add_up
from pipeline.stages.text_sizes import Texts

REHEARSAL_SECONDS = 3.0
ALL = "in all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="names in config/zoo, or zoo")
    parser.add_argument("--config", type=Path, default=Path("config"), help="folder of settings")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="where texts are fetched")
    parser.add_argument("--tokens-per-second", type=float, help="of the device, all ranks together")
    parser.add_argument("--devices", type=int, default=0, help="how many make that speed together")
    parser.add_argument("--out", type=Path, help="the plan, a JSON file")


def run(args: argparse.Namespace) -> None:
    """Print the plan of each recipe."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")
    catalog = load_catalog(args.config)
    named = list(catalog.zoo) if args.recipes == ["zoo"] else args.recipes
    mirror = catalog.config.mirror or os.environ.get("PIPELINE_MIRROR")
    texts = Texts(catalog, args.results, args.data, Path(mirror) if mirror else None)
    plans: dict[str, list[StageCost]] = {}
    facts: dict[str, list[Comparison]] = {}
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for name in chosen_recipes(catalog, named):
        parameters = sum(p.numel() for p in outline_recipe(catalog, name).parameters())
        plan = Plan(catalog, texts, name, parameters)
        speeds, ranks = _speeds(catalog, plan, args.tokens_per_second)
        plans[name] = list(plan.costs(*speeds, ranks))
        facts[name] = compare(plans[name], _resources(plan, args.results))
        console.print(_title(plan, speeds[0], ranks, args), soft_wrap=True)
        if plan.left_out:
            names = ", ".join(plan.left_out)
            console.print(f"not at hand, not counted in fine-tuning: {names}", soft_wrap=True)
        console.print(_table(plans[name], args.devices, facts[name]))
    if len(plans) > 1:
        console.print(f"{len(plans)} recipes together; files that several of them use count once")
        console.print(_table(add_up(catalog, plans), args.devices))
    if args.out:
        stamp = make_stamp("plan", {"recipes": list(plans)}, {})
        costs = {name: [asdict(cost) for cost in plan] for name, plan in plans.items()}
        ran = {name: [fact.model_dump() for fact in found] for name, found in facts.items()}
        write_json(args.out, {"stamp": stamp, "recipes": costs, "measured": ran})


def _resources(plan: Plan, results: Path) -> list[Resources]:
    """Return what the jobs of a plan took that have run here."""
    recipe = ReportedRecipe(
        name=plan.name, vocabulary=plan.vocabulary, instances=plan.recipe.instances
    )
    found = read_resources(results / "benchmarks", recipe)
    return [job for job in found if (job.stage, job.job) in plan.job_names()]


def _speeds(catalog: Catalog, plan: Plan, stated: float | None) -> tuple[tuple[Speed, Speed], int]:
    """Return (speeds of pre-training and fine-tuning, ranks that they are for)."""
    if stated:
        return (Speed(stated, 0), Speed(stated, 0)), 1
    size, tokens = plan.size, vocab_size(catalog, plan.name)
    lengths = size.lengths if size else [128]
    values, labelled = finetune_rehearsal(catalog, plan)
    # A process of its own for each, so that one's peak memory is not the other's.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        finetuning = pool.submit(_rehearse_finetuning, values, labelled or lengths, tokens).result()
        if not plan.recipe.instances:
            return (finetuning, finetuning), 1
        section = catalog.instances[plan.recipe.instances]
        ranks = _ranks(catalog, plan)
        rows = catalog.pretrain_spec(plan.name), lengths, tokens, section.seq_length, ranks
        pretraining = pool.submit(_rehearse_pretraining, *rows).result()
    return (pretraining, finetuning), ranks


def _ranks(catalog: Catalog, plan: Plan) -> int:
    """Return how many ranks would train here: as configured, as far as there are processors."""
    assert plan.recipe.optimization is not None
    most = min(catalog.config.ranks, plan.recipe.optimization.micro_batches, os.cpu_count() or 1)
    return 1 << most.bit_length() - 1


def finetune_rehearsal(catalog: Catalog, plan: Plan) -> tuple[dict[str, Any], list[int]]:
    """Return settings of a fine-tuning from a random start, and its rows' lengths if at hand."""
    for dataset, (train, *_) in plan.parts.items():
        if train or len(plan.parts) == len(plan.left_out):
            values = catalog.finetune_spec(plan.name, dataset, "random", 7)
            return values, train.lengths if train else []
    architecture = catalog.architectures[plan.recipe.architecture].model_dump(mode="json")
    return {"architecture": architecture, "task": {"name": "classify"}}, []


def _rehearse_finetuning(values: dict[str, Any], lengths: list[int], tokens: int) -> Speed:
    from pipeline.training.rehearsal import rehearse_finetuning

    start = time.process_time()
    found = rehearse_finetuning(FinetuneSpec(**values), lengths, tokens, REHEARSAL_SECONDS)
    return Speed(found.tokens_per_second, found.peak_bytes, start)


def _rehearse_pretraining(
    values: dict[str, Any], lengths: list[int], tokens: int, seq_length: int, ranks: int
) -> Speed:
    from pipeline.training.rehearsal import rehearse_pretraining

    start = time.process_time()
    spec = PretrainSpec(**values)
    found = rehearse_pretraining(spec, lengths, tokens, seq_length, REHEARSAL_SECONDS, ranks)
    return Speed(found.tokens_per_second, found.peak_bytes, start)


def _title(plan: Plan, speed: Speed, ranks: int, args: argparse.Namespace) -> str:
    size, devices = plan.size, f" of {args.devices} devices" if args.devices else ""
    text = "no text"
    if size:
        counted = f"{size.tokens:,} tokens in {size.rows:,} rows, " if size.rows else ""
        text = counted + size.known_from
    where = f"on {ranks} ranks" if ranks > 1 else "on one rank"
    if args.tokens_per_second:
        where = f"stated{devices}, fine-tuning included"
    return (
        f"{plan.name}: {plan.weights / 4e6:.1f} million parameters; {text}; "
        f"{speed.tokens_per_second:,.0f} tokens/s {where}"
    )


def _table(costs: list[StageCost], devices: int, facts: Sequence[Comparison] = ()) -> Table:
    table = Table(box=None)
    columns = ["stage", "jobs", "tokens", "time", "memory", "disk"]
    columns += ["device-hours"] * bool(devices) + ["measured", "of plan"] * bool(facts)
    for column in columns:
        table.add_column(column, justify="left" if column == "stage" else "right")
    ran = {fact.stage: fact for fact in [*facts, *_all_facts(facts)]}
    for cost in [*costs, _all_costs(costs)]:
        table.add_row(
            cost.stage,
            str(cost.jobs),
            f"{cost.tokens:,}",
            _duration(cost.seconds),
            _bytes(cost.memory_bytes),
            _bytes(cost.disk_bytes),
            *[f"{cost.seconds * devices / 3600:,.1f}"] * bool(devices),
            *(_measured(ran[cost.stage]) if cost.stage in ran else ()),
        )
    return table


def _all_costs(costs: Sequence[StageCost]) -> StageCost:
    return StageCost(
        ALL,
        sum(cost.jobs for cost in costs),
        sum(cost.tokens for cost in costs),
        sum(cost.seconds for cost in costs),
        max(cost.memory_bytes for cost in costs),
        sum(cost.disk_bytes for cost in costs),
    )


def _all_facts(facts: Sequence[Comparison]) -> Iterator[Comparison]:
    """Yield the sum of what has run, if anything has."""
    if facts:
        yield Comparison(
            stage=ALL,
            jobs=sum(fact.jobs for fact in facts),
            measured_jobs=sum(fact.measured_jobs for fact in facts),
            predicted_seconds=sum(fact.predicted_seconds for fact in facts),
            seconds=sum(fact.seconds for fact in facts),
        )


def _measured(fact: Comparison) -> tuple[str, str]:
    """Return time and its ratio to the plan, with the number of jobs where it is not all."""
    some = "" if fact.measured_jobs == fact.jobs else f" ({fact.measured_jobs} of {fact.jobs} jobs)"
    return f"{_duration(fact.seconds)}{some}", f"{fact.ratio:.2f}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
