"""Check recipes: every name, key and range in config/, and that each model can be built.

Models are built on the meta device, without memory. All problems of all recipes are told together.
Without RECIPE, those that config.yaml selects. --out receives the resolved recipes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import make_stamp, write_json
from pipeline.catalog import Catalog, content
from pipeline.config import load_catalog
from pipeline.errors import ConfigError, PipelineError, UsageError
from pipeline.registry import INSTANCES, PROBES, TASKS, nearest
from pipeline.spec import FinetuneSpec, PretrainSpec, validate

if TYPE_CHECKING:
    from pipeline.model import Model

# Of a vocabulary whose size is known only once it is there: that of Google's Chinese BERT.
NOMINAL_VOCAB_SIZE = 21128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="names in config/zoo")
    parser.add_argument("--config", type=Path, default=Path("config"), help="folder of settings")
    parser.add_argument("--out", type=Path, help="the resolved recipes, a JSON file")


def run(args: argparse.Namespace) -> None:
    """Check all recipes; raise all their problems in one ConfigError."""
    catalog = load_catalog(args.config)
    names = chosen_recipes(catalog, args.recipes)
    problems = list(dict.fromkeys(line for name in names for line in _problems(catalog, name)))
    if problems:
        raise ConfigError(*problems)
    resolved = {name: _resolved(catalog, name) for name in names}
    if args.out:
        stamp = make_stamp("check", {"recipes": names}, {"settings": catalog.digest(names)})
        write_json(args.out, {"stamp": stamp, "recipes": resolved})
    for name, recipe in resolved.items():
        millions = recipe["parameters"] / 1e6
        print(f"check: {name}: {millions:.1f} million parameters, fine", file=sys.stderr)


def chosen_recipes(catalog: Catalog, names: Sequence[str]) -> list[str]:
    """Return the recipes that were asked for, or those selected. Raises UsageError."""
    if unknown := [name for name in names if name not in catalog.zoo]:
        raise UsageError(*(f"no recipe {name!r}; {nearest(name, catalog.zoo)}" for name in unknown))
    return list(dict.fromkeys(names or catalog.config.recipes))


def vocab_size(catalog: Catalog, recipe: str) -> int:
    """Return the largest number of tokens that a recipe's vocabulary can have, or a nominal one."""
    built = catalog.vocabularies[catalog.vocabulary_of(recipe)].built
    return built.size if built and built.size else NOMINAL_VOCAB_SIZE


def outline_recipe(catalog: Catalog, recipe: str) -> "Model":
    """Return a recipe's model on the meta device. Raises ConfigError."""
    from pipeline.model import outline_model

    section = catalog.zoo[recipe]
    architecture = catalog.architectures[section.architecture]
    targets = section.targets or []
    return outline_model(architecture, targets, vocab_size(catalog, recipe), section.reference)


def _problems(catalog: Catalog, recipe: str) -> list[str]:
    where = catalog.folder / "zoo" / f"{recipe}.yaml"
    found: list[str] = []
    try:
        model = outline_recipe(catalog, recipe)
        for check in (_check_instances, _check_finetuning, _check_probes):
            try:
                check(catalog, recipe, model)
            except PipelineError as error:
                found += error.problems
    except PipelineError as error:
        found += error.problems
    return [f"{where}: {problem}" for problem in found]


def _check_instances(catalog: Catalog, recipe: str, model: "Model") -> None:
    from pipeline.training.pretraining import check_instances

    section = catalog.zoo[recipe]
    if section.instances is None:
        return
    instances = catalog.instances[section.instances]
    kind = {"name": instances.kind, **instances.options()}
    INSTANCES.configure(kind, f"instances {section.instances}")
    spec = validate(PretrainSpec, catalog.pretrain_spec(recipe), recipe)
    check_instances(spec, instances.kind, "targets")
    table = getattr(model.embedding, "position", None)
    if table is not None and table.num_embeddings < instances.seq_length:
        raise ConfigError(
            f"instances: {section.instances} has rows of {instances.seq_length} tokens, the "
            f"embedding {table.num_embeddings} positions; raise embedding.max_positions"
        )


def _check_finetuning(catalog: Catalog, recipe: str, model: "Model") -> None:
    from pipeline.training.preparation import check_fit

    for dataset in catalog.datasets_of(recipe):
        task, _ = TASKS.configure(catalog.datasets[dataset].task.section(), f"{dataset}: task")
        spec = validate(FinetuneSpec, catalog.finetune_spec(recipe, dataset, "random", 0), dataset)
        try:
            check_fit(spec, model, task.pools)
        except ConfigError as error:
            raise ConfigError(
                *(f"finetune on {dataset}: {line}" for line in error.problems)
            ) from None


def _check_probes(catalog: Catalog, recipe: str, model: "Model") -> None:
    section = catalog.zoo[recipe]
    known = [target.name for target in section.targets or []]
    for name, asked in section.probes.items():
        where = f"probes.{name}.probe"
        probe, _ = PROBES.configure(asked.probe.section(), where)
        if files := sorted(set(probe.files) & set(asked.probe.section())):
            raise ConfigError(
                f"{where}.{files[0]}: names a file, and no rule makes it; leave it out"
            )
        # What an imported model was trained for, only its file tells.
        if known and probe.needs and probe.needs not in known:
            raise ConfigError(
                f"{where}: {probe.name} needs target {probe.needs}, this recipe has "
                f"{', '.join(known)}"
            )


def _resolved(catalog: Catalog, recipe: str) -> dict[str, Any]:
    parameters = outline_recipe(catalog, recipe).parameters()
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "vocab_size": vocab_size(catalog, recipe),
        "pretrain": catalog.pretrain_spec(recipe) if catalog.zoo[recipe].is_trained else None,
        "finetune": {
            f"{run.dataset}/{run.start}_seed_{run.seed}": catalog.finetune_spec(*run)
            for run in catalog.runs(recipe)
        },
        "probes": {name: content(probe) for name, probe in catalog.zoo[recipe].probes.items()},
    }
