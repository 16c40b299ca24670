"""Everything config/ says: read, checked as a whole, and resolved into what each stage receives.

Keys, types, ranges and cross-references are checked in milliseconds, without torch, and all
problems are told together. What a component's options mean is its own to check (stage check).
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from pipeline.errors import ConfigError, PipelineError, UnsafeError, printable
from pipeline.recipes import (
    STARTS,
    FinetuneSection,
    InstancesSection,
    MainConfig,
    Recipe,
    Start,
    VocabularySection,
)
from pipeline.registry import nearest
from pipeline.sources import CorpusSpec, DatasetSpec, Source
from pipeline.spec import (
    NAME_PATTERN,
    ArchitectureSpec,
    FinetuneSpec,
    InstancesSpec,
    PretrainSpec,
    VocabSpec,
    validate,
)
from pipeline.strict import read_yaml

FOR_PEOPLE = {"description", "language", "licence"}
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


class Run(NamedTuple):
    """One fine-tuning: 5_finetune/{recipe}/{dataset}/{start}_seed_{seed}.safetensors."""

    recipe: str
    dataset: str
    start: Start
    seed: int


@dataclass(frozen=True)
class Catalog:
    """The checked content of config/: folder -> name of the file -> model."""

    folder: Path
    config: MainConfig
    corpora: Mapping[str, CorpusSpec]
    datasets: Mapping[str, DatasetSpec]
    vocabularies: Mapping[str, VocabularySection]
    instances: Mapping[str, InstancesSection]
    architectures: Mapping[str, ArchitectureSpec]
    zoo: Mapping[str, Recipe]

    def corpus_spec(self, corpus: str) -> dict[str, Any]:
        """Return what `fetch` receives for a corpus."""
        return content(self.corpora[corpus], FOR_PEOPLE)

    def dataset_spec(self, dataset: str) -> dict[str, Any]:
        """Return what `fetch` receives for a data set."""
        return content(self.datasets[dataset], FOR_PEOPLE | {"finetune"})

    def vocab_spec(self, vocabulary: str) -> dict[str, Any]:
        """Return what `vocab` receives."""
        section = self.vocabularies[vocabulary]
        values = content(section, FOR_PEOPLE | {"built", "imported"})
        built = content(section.built, {"corpora"}) if section.built else {}
        return content(VocabSpec(**values, **built))

    def instances_spec(self, instances: str) -> dict[str, Any]:
        """Return what `instances` receives."""
        section = self.instances[instances]
        values = content(section, FOR_PEOPLE | {"corpora", "vocabulary", "jobs"})
        return content(InstancesSpec(**values, **self._cutting(section.vocabulary)))

    def pretrain_spec(self, recipe: str) -> dict[str, Any]:
        """Return what `pretrain` receives."""
        section = self.zoo[recipe]
        values = {
            "architecture": self.architectures[section.architecture],
            "targets": section.targets,
            "optimization": section.optimization,
            "reference": section.reference,
        }
        return content(PretrainSpec.model_validate(values))

    def finetune_spec(self, recipe: str, dataset: str, start: Start, seed: int) -> dict[str, Any]:
        """Return what `finetune` receives; the recipe's wishes win over the data set's.

        A pre-trained start takes the architecture from its file; of an imported model it is given
        all the same, so that the file is checked against what the random start is built from.
        """
        section = self.zoo[recipe]
        values = self._finetune_settings(recipe, dataset)
        del values["seeds"], values["starts"]
        if start == "random" or section.imported:
            values["architecture"] = self.architectures[section.architecture]
        values |= {"task": self.datasets[dataset].task, "seed": seed}
        values |= {"reference": section.reference, **self._cutting(self.vocabulary_of(recipe))}
        return content(FinetuneSpec.model_validate(values))

    def vocabulary_of(self, recipe: str) -> str:
        """Return the name of a recipe's vocabulary."""
        section = self.zoo[recipe]
        if section.instances is None:
            assert section.vocabulary is not None
            return section.vocabulary
        return self.instances[section.instances].vocabulary

    def datasets_of(self, recipe: str) -> list[str]:
        """Return the data sets on which a recipe is fine-tuned."""
        own = self.zoo[recipe].datasets
        return self.config.datasets if own is None else own

    def runs(self, recipe: str) -> list[Run]:
        """Return all fine-tunings of a recipe."""
        result = []
        for dataset in self.datasets_of(recipe):
            settings = self._finetune_settings(recipe, dataset)
            seeds = self.config.seeds or settings["seeds"]
            wanted = [start for start in STARTS if start in settings["starts"]]
            result += [Run(recipe, dataset, start, seed) for start in wanted for seed in seeds]
        return result

    def chain(self, recipe: str) -> list[str]:
        """Return a recipe and those whose models it starts from, itself first."""
        names = [recipe]
        while (initial := self.zoo[names[-1]].initial) is not None:
            names.append(initial)
        return names

    def sources_of(self, recipe: str) -> list[Source]:
        """Return all files from elsewhere that a recipe's model is made of."""
        result: list[Source] = []
        for name in self.chain(recipe):
            section = self.zoo[name]
            vocabulary = self.vocabularies[self.vocabulary_of(name)]
            corpora = list(vocabulary.built.corpora) if vocabulary.built else []
            result += [vocabulary.imported] if vocabulary.imported else []
            result += [section.imported.source] if section.imported else []
            corpora += self.instances[section.instances].corpora if section.instances else []
            result += [source for corpus in corpora for source in self.corpora[corpus].sources]
        return result

    def _cutting(self, vocabulary: str) -> dict[str, Any]:
        section = self.vocabularies[vocabulary]
        return {"tokenizer": section.tokenizer, "lowercase": section.lowercase}

    def _finetune_settings(self, recipe: str, dataset: str) -> dict[str, Any]:
        wishes = FinetuneSection(**self.datasets[dataset].finetune).given()
        wishes |= self.zoo[recipe].finetune.given()
        defaults = FinetuneSection()
        return {"seeds": defaults.seeds, "starts": defaults.starts, **wishes}


def content(model: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a section as plain values, without what equals the defaults: equal sense, equal JSON.

    So a default that is written out, or a new field with a default, makes nothing stale.
    """
    return model.model_dump(mode="json", exclude_defaults=True, exclude=set(without))


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
        yield from _each("datasets", "datasets", section.datasets)
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


def _loop(catalog: Catalog, recipe: str) -> list[str]:
    """Return the names on the way from a recipe back to one already met; empty if there is none."""
    names = [recipe]
    while (initial := catalog.zoo[names[-1]].initial) is not None:
        names.append(initial)
        if initial in names[:-1]:
            return names
    return []
