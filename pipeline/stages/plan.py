"""Predict, before anything runs, what recipes take: jobs, tokens, time, memory and disk a stage.

Speed and memory come from a rehearsal: a few seconds of the trainer's own steps on this machine.
RECIPE may be `zoo`: all of config/zoo. With --tokens-per-second, of a device that is not at hand,
nothing is rehearsed, and every model is taken to run at that speed.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.artifacts import make_stamp, write_json
from pipeline.catalog import Catalog
from pipeline.config import load_catalog
from pipeline.spec import FinetuneSpec, PretrainSpec
from pipeline.stages.check import chosen_recipes, outline_recipe, vocab_size
from pipeline.stages.planning import Plan, Speed, StageCost, Texts, add_up

REHEARSAL_SECONDS = 3.0


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
    console = Console(highlight=False)
    for name in chosen_recipes(catalog, named):
        parameters = sum(p.numel() for p in outline_recipe(catalog, name).parameters())
        plan = Plan(catalog, texts, name, parameters)
        speeds, ranks = _speeds(catalog, plan, args.tokens_per_second)
        plans[name] = list(plan.costs(*speeds, ranks))
        console.print(_title(plan, speeds[0], ranks))
        console.print(_table(plans[name], args.devices))
    if len(plans) > 1:
        console.print(f"{len(plans)} recipes together; files that several of them use count once")
        console.print(_table(add_up(catalog, plans), args.devices))
    if args.out:
        stamp = make_stamp("plan", {"recipes": list(plans)}, {})
        costs = {name: [asdict(cost) for cost in plan] for name, plan in plans.items()}
        write_json(args.out, {"stamp": stamp, "recipes": costs})


def _speeds(catalog: Catalog, plan: Plan, stated: float | None) -> tuple[tuple[Speed, Speed], int]:
    """Return (speeds of pre-training and fine-tuning, ranks that they are for)."""
    if stated:
        return (Speed(stated, 0), Speed(stated, 0)), 1
    size, tokens = plan.size, vocab_size(catalog, plan.name)
    lengths = size.lengths if size else [128]
    tuning = partial(_rehearse_finetuning, _finetune_values(catalog, plan), lengths, tokens)
    # A process of its own for each, so that one's peak memory is not the other's.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        finetuning = pool.submit(tuning).result()
        if not plan.recipe.instances:
            return (finetuning, finetuning), 1
        section = catalog.instances[plan.recipe.instances]
        spec = catalog.pretrain_spec(plan.name)
        training = partial(_rehearse_pretraining, spec, lengths, tokens, section.seq_length)
        pretraining = pool.submit(training).result()
    return (pretraining, finetuning), min(catalog.config.ranks, os.cpu_count() or 1)


def _finetune_values(catalog: Catalog, plan: Plan) -> dict[str, Any]:
    """Return the settings of a fine-tuning from a random start, any data set."""
    datasets = catalog.datasets_of(plan.name)
    if datasets:
        return catalog.finetune_spec(plan.name, datasets[0], "random", 7)
    architecture = catalog.architectures[plan.recipe.architecture].model_dump(mode="json")
    return {"architecture": architecture, "task": {"name": "classify"}}


def _rehearse_finetuning(values: dict[str, Any], lengths: list[int], tokens: int) -> Speed:
    from pipeline.training.rehearsal import rehearse_finetuning

    found = rehearse_finetuning(FinetuneSpec(**values), lengths, tokens, REHEARSAL_SECONDS)
    return Speed(found.tokens_per_second, found.peak_bytes)


def _rehearse_pretraining(
    values: dict[str, Any], lengths: list[int], tokens: int, seq_length: int
) -> Speed:
    from pipeline.training.rehearsal import rehearse_pretraining

    spec = PretrainSpec(**values)
    found = rehearse_pretraining(spec, lengths, tokens, seq_length, REHEARSAL_SECONDS)
    return Speed(found.tokens_per_second, found.peak_bytes)


def _title(plan: Plan, speed: Speed, ranks: int) -> str:
    size = plan.size
    text = f"{size.tokens:,} tokens in {size.rows:,} rows, {size.known_from}" if size else "no text"
    return (
        f"{plan.name}: {plan.weights / 4e6:.1f} million parameters; {text}; "
        f"{speed.tokens_per_second:,.0f} tokens/s on each of {ranks} ranks"
    )


def _table(costs: list[StageCost], devices: int) -> Table:
    table = Table(box=None)
    columns = ["stage", "jobs", "tokens", "time", "memory", "disk"]
    for column in columns + ["device-hours"] * bool(devices):
        table.add_column(column, justify="left" if column == "stage" else "right")
    seconds, disk = sum(cost.seconds for cost in costs), sum(cost.disk_bytes for cost in costs)
    total = StageCost(
        "in all", sum(c.jobs for c in costs), sum(c.tokens for c in costs), seconds,
        max(cost.memory_bytes for cost in costs), disk,
    )  # fmt: skip
    for cost in [*costs, total]:
        table.add_row(
            cost.stage,
            str(cost.jobs),
            f"{cost.tokens:,}",
            _duration(cost.seconds),
            _bytes(cost.memory_bytes),
            _bytes(cost.disk_bytes),
            *[f"{cost.seconds * devices / 3600:,.1f}"] * bool(devices),
        )
    return table


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
