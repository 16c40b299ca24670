"""What config/ says, resolved into what each stage receives; config.py reads and checks it."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pipeline.artifacts import digest_value
from pipeline.recipes import (
    STARTS,
    FinetuneSection,
    InstancesSection,
    MainConfig,
    Recipe,
    Start,
    VocabularySection,
)
from pipeline.sources import DEFAULT_MIRROR, PARTS, CorpusSpec, DatasetSpec, Source
from pipeline.spec import (
    ArchitectureSpec,
    ConvertSpec,
    FinetuneSpec,
    InstancesSpec,
    PretrainSpec,
    VocabSpec,
)

# Page of results/7_report -> the selection of recipes that it shows.
PAGES = {"report": "all", "report_zoo": "zoo", "report_zoo_mini": "zoo_mini"}
FOR_PEOPLE = {"description", "language", "licence", "origin", "needs"}


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

    def vocabulary_source(self, vocabulary: str) -> dict[str, Any]:
        """Return what `fetch` receives for a published vocabulary."""
        imported = self.vocabularies[vocabulary].imported
        assert imported is not None, vocabulary
        return content(imported)

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
            "optimization": dict(section.optimization or ()) | self._precision(),
            "reference": section.reference,
        }
        return content(PretrainSpec.model_validate(values))

    def convert_spec(self, recipe: str) -> dict[str, Any]:
        """Return what `convert` receives: what a model from elsewhere must be, or cannot say."""
        section = self.zoo[recipe]
        values = {
            "architecture": self.architectures[section.architecture],
            "reference": section.reference,
            **self._cutting(self.vocabulary_of(recipe)),
        }
        return content(ConvertSpec.model_validate(values))

    def finetune_spec(
        self, recipe: str, dataset: str, start: str, seed: int | str
    ) -> dict[str, Any]:
        """Return what `finetune` receives; the recipe's wishes win over the data set's.

        A pre-trained start takes the architecture from its file; of an imported model it is given
        all the same, so that the file is checked against what the random start is built from.
        """
        section = self.zoo[recipe]
        values = self._finetune_settings(recipe, dataset)
        del values["seeds"], values["starts"]
        if start == "random" or section.imported:
            values["architecture"] = self.architectures[section.architecture]
        rows = self.datasets[dataset]
        values |= {"task": rows.task, "bad_rows": rows.bad_rows, "seed": int(seed)}
        values |= {"reference": section.reference, **self._cutting(self.vocabulary_of(recipe))}
        return content(FinetuneSpec.model_validate(values))

    def report_spec(self, recipes: Sequence[str]) -> dict[str, Any]:
        """Return what `report` receives."""
        datasets = sorted({run.dataset for recipe in recipes for run in self.runs(recipe)})
        return {
            "recipes": [self._reported(recipe) for recipe in recipes],
            "datasets": [self._reported_dataset(dataset) for dataset in datasets],
            "speed": [content(speed) for name in recipes for speed in self.zoo[name].speed],
            "ratios": self._ratios(recipes),
        }

    def probe_spec(self, recipe: str, probe: str) -> dict[str, Any]:
        """Return what `probe` receives besides its name and what it reads."""
        options = self.zoo[recipe].probes[probe].probe.section()
        return {key: value for key, value in options.items() if key != "name"}

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
        """Return all fine-tunings of a recipe; random starts may be its baseline's."""
        owners = {"random": self.zoo[recipe].baseline or recipe}
        result = []
        for dataset in self.datasets_of(recipe):
            settings = self._finetune_settings(recipe, dataset)
            seeds = self.config.seeds or settings["seeds"]
            wanted = [start for start in STARTS if start in settings["starts"]]
            result += [
                Run(owners.get(start, recipe), dataset, start, seed)
                for start in wanted
                for seed in seeds
            ]
        return result

    def chain(self, recipe: str) -> list[str]:
        """Return a recipe and those whose models it starts from, itself first."""
        names = [recipe]
        while (initial := self.zoo[names[-1]].initial) is not None:
            names.append(initial)
        return names

    def corpora_of(self, recipe: str) -> list[str]:
        """Return the corpora of a recipe and of those whose models it starts from, each once."""
        sets = [self.zoo[name].instances for name in self.chain(recipe)]
        names = [corpus for name in sets if name for corpus in self.instances[name].corpora]
        return list(dict.fromkeys(names))

    def available_runs(self, recipe: str) -> list[Run]:
        """Return the fine-tunings of a recipe on data sets that can be had."""
        return [run for run in self.runs(recipe) if not self.lacking(run.dataset)]

    def available_probes(self, recipe: str) -> list[str]:
        """Return the probes of a recipe whose corpora can be had."""
        probes = self.zoo[recipe].probes.items()
        return [
            name
            for name, section in probes
            if not (section.corpus and self._corpus_lacks(section.corpus))
        ]

    def rows_of(self, selection: str) -> list[str]:
        """Return the recipes that all, zoo or zoo_mini names, those that cannot run included."""
        if selection == "all":
            return self.config.recipes
        return [name for name in self.zoo if selection == "zoo" or name.endswith("_mini")]

    def selected(self, selection: str) -> list[str]:
        """Return the recipes that all, zoo or zoo_mini builds: of the zoo those that can run."""
        if selection == "all":
            return self.rows_of(selection)
        return [name for name in self.rows_of(selection) if not self.unavailable(name)]

    def unavailable(self, recipe: str) -> str:
        """Return what the user must supply before a recipe can run; empty once it is there.

        A recipe needs its text and weights, and those of the recipes that it starts from, but not
        every data set: the runs on others remain. One without weights of its own needs one.
        """
        lacks = []
        for name in self.chain(recipe):
            section = self.zoo[name]
            vocabulary = self.vocabularies[self.vocabulary_of(name)]
            corpora = list(vocabulary.built.corpora) if vocabulary.built else []
            corpora += self.instances[section.instances].corpora if section.instances else []
            lacks += [self._corpus_lacks(corpus) for corpus in corpora]
            lacks += [self._lacks([vocabulary.imported])] if vocabulary.imported else []
            if section.imported:
                lacks.append(self._lacks([section.imported.source], section.needs))
        if not (self.zoo[recipe].is_trained or self.zoo[recipe].imported):
            missing = [self.lacking(dataset) for dataset in self.datasets_of(recipe)]
            lacks += missing if all(missing) else []
        return "; ".join(filter(None, dict.fromkeys(lacks)))

    def lacking(self, dataset: str) -> str:
        """Return what the user must supply before a data set can be used; empty if it is there."""
        files, split = self.datasets[dataset].files, self.datasets[dataset].split
        sources = [source for part in PARTS if files and (source := getattr(files, part))]
        return self._lacks(sources + (split.sources if split else []), self.datasets[dataset].needs)

    def needs(self, recipe: str) -> list[str]:
        """Return what a user must supply for a recipe's model, whether or not it is there."""
        found: list[str | None] = []
        for name in self.chain(recipe):
            section = self.zoo[name]
            corpora = self.instances[section.instances].corpora if section.instances else []
            sources = [source for corpus in corpora for source in self.corpora[corpus].sources]
            found += [section.needs, *(self.corpora[corpus].needs for corpus in corpora)]
            found += [self.datasets[source.dataset].needs for source in sources if source.dataset]
        return [need for need in dict.fromkeys(found) if need]

    def _corpus_lacks(self, corpus: str) -> str:
        section = self.corpora[corpus]
        lacks = [self.lacking(source.dataset) for source in section.sources if source.dataset]
        lacks.append(self._lacks(section.sources, section.needs))
        return "; ".join(filter(None, dict.fromkeys(lacks)))

    def _lacks(self, sources: Sequence[Source], needs: str | None = None) -> str:
        """Return what to supply where files are neither public nor at hand, else nothing."""
        wanted = [source.path for source in sources if source.path and not source.url]
        missing = [path for path in wanted if not self.place(path).exists()]
        return (needs or f"{', '.join(missing)} in the mirror") if missing else ""

    def place(self, path: str) -> Path:
        """Return where the file or folder of a source's path is: in the mirror, or else here."""
        mirror = self.config.mirror or os.environ.get("PIPELINE_MIRROR") or DEFAULT_MIRROR
        mirrored = Path(mirror, path)
        return mirrored if mirrored.exists() else Path(path)

    def digest(self, recipes: Sequence[str]) -> str:
        """Return the digest of everything that determines models, scores and probes of recipes."""
        resolved = [
            {
                "pretrain": self.pretrain_spec(name) if self.zoo[name].is_trained else None,
                "imported": [content(origin) for origin in [self.zoo[name].imported] if origin],
                "instances": self.instances_spec(set_name) if set_name else None,
                "vocab": self.vocab_spec(self.vocabulary_of(name)),
                "finetune": [self.finetune_spec(*run) for run in self.runs(name)],
                "probes": {key: content(probe) for key, probe in self.zoo[name].probes.items()},
            }
            for recipe in recipes
            for name in self.chain(recipe)
            for set_name in [self.zoo[name].instances]
        ]
        return digest_value(resolved)

    def _reported(self, name: str) -> dict[str, Any]:
        recipe = self.zoo[name]
        scores: dict[str, dict[str, Any]] = {}
        for run in self.runs(name):
            score = scores.setdefault(
                run.dataset, {"dataset": run.dataset, "starts": [], "seeds": []}
            )
            score["starts"] += [] if run.start in score["starts"] else [run.start]
            score["seeds"] += [] if run.seed in score["seeds"] else [run.seed]
        chosen = [f"{key}={value}" for key, value in self._precision().items()]
        values = {
            "name": name,
            "description": recipe.description,
            "vocabulary": self.vocabulary_of(name),
            "instances": recipe.instances,
            "steps": recipe.steps,
            "initial": recipe.initial,
            "baseline": recipe.baseline,
            "unavailable": self.unavailable(name),
            "command": " ".join(["snakemake --cores 2 --config", *chosen, f"'recipes=[{name}]'"]),
            "architecture": recipe.architecture,
            "probes": list(recipe.probes),
            "scores": list(scores.values()),
            "published": [content(figure) for figure in recipe.published],
        }
        return {key: value for key, value in values.items() if value}

    def _ratios(self, recipes: Sequence[str]) -> list[dict[str, Any]]:
        ratios = {}
        for recipe in (self.zoo[name] for name in recipes):
            if recipe.faster:
                ratios[recipe.architecture, recipe.faster.than] = {
                    "model": recipe.architecture,
                    **content(recipe.faster),
                }
        return list(ratios.values())

    def _reported_dataset(self, name: str) -> dict[str, Any]:
        dataset = self.datasets[name]
        description = {"description": dataset.description or "", "licence": dataset.licence}
        return {"name": name, "task": dataset.task.name, **description}

    def _cutting(self, vocabulary: str) -> dict[str, Any]:
        section = self.vocabularies[vocabulary]
        return {"tokenizer": section.tokenizer, "lowercase": section.lowercase}

    def _precision(self) -> dict[str, Any]:
        return {"precision": self.config.precision} if self.config.precision else {}

    def _finetune_settings(self, recipe: str, dataset: str) -> dict[str, Any]:
        wishes = FinetuneSection(**self.datasets[dataset].finetune).given()
        wishes |= self.zoo[recipe].finetune.given() | self._precision()
        defaults = FinetuneSection()
        return {"seeds": defaults.seeds, "starts": defaults.starts, **wishes}


def content(model: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a section as plain values, without what equals the defaults: equal sense, equal JSON.

    So a default that is written out, or a new field with a default, makes nothing stale.
    """
    return model.model_dump(mode="json", exclude_defaults=True, exclude=set(without))
