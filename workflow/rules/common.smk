# Settings, checked once when the workflow is read, and the functions that rules ask for theirs.
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from snakemake.exceptions import WorkflowError

from pipeline.catalog import PAGES
from pipeline.config import load_catalog
from pipeline.errors import PipelineError
from pipeline.strict import canonical_json

try:
    CATALOG = load_catalog(Path("config"), config)
except PipelineError as error:
    raise WorkflowError(*error.problems)

# Jobs run `python -m pipeline` with this interpreter, from whatever folder the workflow runs in.
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
    PYTHONPATH=os.pathsep.join(filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")])),
)
# Not a param of `fetch`: where a file was found makes nothing stale.
if CATALOG.config.mirror:
    os.environ.update(PIPELINE_MIRROR=os.path.abspath(CATALOG.config.mirror))

# Figures and speeds that come with this repository.
MEASURED = sorted(map(str, Path(workflow.basedir, "docs", "measured").glob("*.json")))
SPEEDS = [path for path in MEASURED if os.path.basename(path) == "speed.json"]
FIGURES = [path for path in MEASURED if path not in SPEEDS]

RANKS, NODES = CATALOG.config.ranks, CATALOG.config.nodes
MEMORY_MB = 4000  # of a process that trains; BERT base with AdamW and the gradient tree: 3.6 GB


def any_of(names):
    """Return a pattern that matches the names and nothing else."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def is_span(dataset):
    """Return whether a data set's parts are passages with questions, not tables."""
    return CATALOG.datasets[dataset].task.name == "span"


wildcard_constraints:
    page=any_of(PAGES),
    selection=any_of(PAGES.values()),
    recipe=any_of(CATALOG.zoo),
    dataset=any_of(CATALOG.datasets),
    corpus=any_of(CATALOG.corpora),
    vocab=any_of(CATALOG.vocabularies),
    instances=any_of(CATALOG.instances),
    start="pretrained|random",
    seed=r"\d+",
    shard=r"\d{5}",
    step=r"\d{8}",
    probe=any_of(probe for recipe in CATALOG.zoo.values() for probe in recipe.probes),


def left_out(name):
    """Return a message about the rows and data sets that a target leaves out."""
    recipes = CATALOG.selected(name)
    datasets = sorted({run.dataset for recipe in recipes for run in CATALOG.runs(recipe)})
    needs = {recipe: CATALOG.unavailable(recipe) for recipe in CATALOG.rows_of(name)}
    needs |= {f"data set {dataset}": CATALOG.lacking(dataset) for dataset in datasets}
    lines = [f"{what} needs {need}" for what, need in needs.items() if need]
    message = "\n  ".join([f"{len(lines)} left out:", *lines]) if lines else "nothing left out"
    return message.replace("{", "{{").replace("}", "}}")


def recipe_at(keep, steps):
    """Return a pattern for {recipe} in paths with {step}, for recipes that keep those checkpoints.

    What temp() marks is fixed for a rule, but depends on recipe and step; so each rule takes its
    own pairs of them: the recipe is followed by one of the steps in its attribute `steps`.
    """
    pairs = []
    for name, recipe in CATALOG.zoo.items():
        numbers = "|".join(f"{step:08d}" for step in getattr(recipe, steps))
        if numbers and recipe.keep_checkpoints == keep:
            pairs.append(rf"{re.escape(name)}(?=/step_(?:{numbers})\b)")
    return "|".join(pairs) or "(?!)"


def recipe_with_probes():
    """Return a pattern for {recipe} in paths with {probe}: it is followed by one of its own."""
    pairs = [
        rf"{re.escape(name)}(?=/(?:{any_of(recipe.probes)})\.json)"
        for name, recipe in CATALOG.zoo.items()
        if recipe.probes
    ]
    return "|".join(pairs) or "(?!)"


def spec(make, *names):
    """Return a params function: the JSON of the resolved section for a job's wildcards."""
    return lambda wildcards: canonical_json(make(*(wildcards[name] for name in names)))


def probe_of(wildcards):
    """Return the section that says what a recipe's model is asked."""
    return CATALOG.zoo[wildcards.recipe].probes[wildcards.probe]


def time_limit():
    """Return the profile's limit for every job, in minutes; 0 where it has none."""
    limit = (workflow.resource_settings.default_resources or {}).get("runtime")
    return limit.raw if limit else 0


def pretrain_resources():
    """Return the resources of a segment: ranks as processes of one node, or as tasks of srun.

    On one node as many ranks start as there are threads, rounded down to a power of two, since
    the number of ranks changes nothing in the result. Unlike params, resources make nothing stale.
    """
    several = NODES > 1
    return {
        "ranks": lambda wildcards, threads: RANKS if several else 1 << threads.bit_length() - 1,
        "launch": f"srun --ntasks={RANKS}" if several else "",
        "mpi": lambda wildcards: "srun" if several else None,
        "nodes": lambda wildcards: NODES if several else None,
        "tasks": lambda wildcards: RANKS if several else None,
        # A retry mostly means that time was up, so memory is raised once, not every time.
        "mem_mb": lambda wildcards, attempt: MEMORY_MB * RANKS // NODES * min(attempt, 2),
        "runtime": time_limit(),
    }
