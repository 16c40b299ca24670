"""Read config/ as a whole: keys, types, ranges, cross-references, all problems told together.

It takes milliseconds and no torch; what a component's options mean is its own to check (stage
check).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline.artifacts import first_difference
from pipeline.catalog import Catalog
from pipeline.errors import ConfigError, PipelineError, UnsafeError, printable
from pipeline.recipes import (
    FinetuneSection,
    InstancesSection,
    MainConfig,
    Recipe,
    VocabularySection,
)
from pipeline.registry import nearest
from pipeline.sources import CorpusSpec, DatasetSpec
from pipeline.spec import NAME_PATTERN, ArchitectureSpec, validate
from pipeline.strict import read_yaml

MAIN_FILE = "config.yaml"
ROOMS: dict[str, type[BaseModel]] = {
    "corpora": CorpusSpec,
    "datasets": DatasetSpec,
    "vocabularies": VocabularySection,
    "instances": InstancesSection,
    "architectures": ArchitectureSpec,
    "zoo": Recipe,
}

Result = TypeVar("Result")


def load_catalog(folder: Path, overrides: Mapping[str, Any] | None = None) -> Catalog:
    """Return the catalog of a config folder.

    overrides: values that win over config.yaml (Snakemake's merged configuration).
    Raises ConfigError (UnsafeError if one of them is) with all problems of all files.
    """
    problems = _Problems()
    main = folder / MAIN_FILE
    values = problems.gather(read_yaml, main) or {}
    sections: dict[str, dict[str, Any]] = {
        room: _read_folder(folder / room, model, problems) for room, model in ROOMS.items()
    }
    config = problems.gather(validate, MainConfig, {**values, **(overrides or {})}, str(main))
    if config is not None:
        sections[""] = {MAIN_FILE.removesuffix(".yaml"): config}
    for message in _unknown_names(folder, sections):
        problems.add(message)
    problems.raise_found()
    assert config is not None
    catalog = Catalog(folder, config, **{room: sections[room] for room in ROOMS})
    for message in _contradictions(catalog):
        problems.add(message)
    problems.raise_found()
    return catalog


class _Problems:
    """Problems of many files, raised together."""

    def __init__(self) -> None:
        self.found: list[PipelineError] = []

    def gather(self, read: Callable[..., Result], *arguments: Any) -> Result | None:
        """Return what `read` returns; keep the problem it raises."""
        try:
            return read(*arguments)
        except PipelineError as error:
            self.found.append(error)
            return None

    def add(self, message: str) -> None:
        self.found.append(ConfigError(message))

    def raise_found(self) -> None:
        if self.found:
            unsafe = any(isinstance(error, UnsafeError) for error in self.found)
            lines = [line for error in self.found for line in error.problems]
            raise (UnsafeError if unsafe else ConfigError)(*lines)


def _read_folder(
    folder: Path, model: type[BaseModel], problems: _Problems
) -> dict[str, BaseModel | None]:
    """Return name -> model of each YAML file; None where the file has a problem."""
    result: dict[str, BaseModel | None] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".yml":
            problems.add(f"{path}: is not read; name it {path.stem}.yaml")
        if path.suffix != ".yaml":
            continue
        if not re.match(NAME_PATTERN, path.stem):
            problems.add(
                f"{printable(path)}: a name is 1 to 64 ASCII letters, digits, _ - and single dots, "
                "the first a letter or digit"
            )
        values = problems.gather(read_yaml, path)
        result[path.stem] = (
            None if values is None else problems.gather(validate, model, values, str(path))
        )
        if isinstance(section := result[path.stem], DatasetSpec):
            where = f"{path}: finetune"
            problems.gather(validate, FinetuneSection, section.finetune, where)
    return result


def _references(section: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Yield (key, room, name) of every name in a section that must be a file of another room."""
    if isinstance(section, CorpusSpec):
        for position, source in enumerate(section.sources):
            if source.dataset:
                yield f"sources.{position}.dataset", "datasets", source.dataset
    elif isinstance(section, VocabularySection):
        yield from _each("built.corpora", "corpora", section.built.corpora if section.built else [])
    elif isinstance(section, InstancesSection):
        yield from _each("corpora", "corpora", section.corpora)
        yield "vocabulary", "vocabularies", section.vocabulary
    elif isinstance(section, Recipe):
        yield "architecture", "architectures", section.architecture
        if section.instances:
            yield "instances", "instances", section.instances
        if section.vocabulary:
            yield "vocabulary", "vocabularies", section.vocabulary
        if section.initial:
            yield "initial", "zoo", section.initial
        if section.baseline:
            yield "baseline", "zoo", section.baseline
        yield from _each("twin_of", "zoo", section.twin_of)
        yield from _each("datasets", "datasets", section.datasets)
        if section.faster:
            yield "faster.than", "architectures", section.faster.than
        for name, probe in section.probes.items():
            if probe.corpus:
                yield f"probes.{name}.corpus", "corpora", probe.corpus
        for position, figure in enumerate(section.published):
            yield f"published.{position}.dataset", "datasets", figure.dataset
    elif isinstance(section, MainConfig):
        yield from _each("recipes", "zoo", section.recipes)
        yield from _each("datasets", "datasets", section.datasets)


def _each(key: str, room: str, names: list[str] | None) -> Iterator[tuple[str, str, str]]:
    for position, name in enumerate(names or []):
        yield f"{key}.{position}", room, name


def _unknown_names(
    folder: Path, sections: Mapping[str, Mapping[str, BaseModel | None]]
) -> Iterator[str]:
    for room, files in sections.items():
        for name, section in files.items():
            for key, other, wanted in _references(section) if section else []:
                if wanted not in sections[other]:
                    hint = nearest(wanted, sections[other])
                    yield (
                        f"{folder / room / name}.yaml: {key}: no file {printable(wanted)}.yaml in "
                        f"{folder / other}; {hint}"
                    )


def _contradictions(catalog: Catalog) -> Iterator[str]:
    """Yield what no file gets wrong alone."""
    for name, recipe in catalog.zoo.items():
        where = f"{catalog.folder / 'zoo' / name}.yaml"
        if difference := _baseline_differs(catalog, name):
            yield f"{where}: baseline: {recipe.baseline} {difference}"
        if recipe.initial is None:
            continue
        if loop := _loop(catalog, name):
            yield f"{where}: initial: starts from itself: {' <- '.join(loop)}"
            continue
        initial = catalog.zoo[recipe.initial]
        if not initial.is_trained and not initial.imported:
            yield f"{where}: initial: {recipe.initial} has no weights of its own"
        ours, theirs = (catalog.vocabulary_of(each) for each in (name, recipe.initial))
        if ours != theirs:
            yield f"{where}: initial: {recipe.initial} has vocabulary {theirs}, this recipe {ours}"
    for name in catalog.config.recipes:
        optimization = catalog.zoo[name].optimization
        if optimization and catalog.config.ranks > optimization.micro_batches:
            yield (
                f"{catalog.folder / MAIN_FILE}: ranks: {catalog.config.ranks} exceeds the "
                f"{optimization.micro_batches} micro_batches of recipe {name}"
            )


def _baseline_differs(catalog: Catalog, name: str) -> str:
    """Return why a recipe's baseline cannot give its random starts; empty if it can, or none."""
    baseline = catalog.zoo[name].baseline
    if baseline is None:
        return ""
    if catalog.zoo[baseline].baseline:
        return f"has a baseline itself, {catalog.zoo[baseline].baseline}; name that"
    ours, theirs = (catalog.vocabulary_of(each) for each in (name, baseline))
    if ours != theirs:
        return f"has vocabulary {theirs}, this recipe {ours}"
    for run in catalog.runs(name):
        if run.recipe != baseline:
            continue
        if run not in catalog.runs(baseline):
            return f"has no random start on {run.dataset} with seed {run.seed}"
        own = catalog.finetune_spec(name, run.dataset, run.start, run.seed)
        other = catalog.finetune_spec(*run)
        if difference := first_difference(own, other, "finetune"):
            return f"is fine-tuned on {run.dataset} otherwise: {difference}"
    return ""


def _loop(catalog: Catalog, recipe: str) -> list[str]:
    """Return the names on the way from a recipe back to one already met; empty if there is none."""
    names = [recipe]
    while (initial := catalog.zoo[names[-1]].initial) is not None:
        names.append(initial)
        if initial in names[:-1]:
            return names
    return []
