"""What config/ says today of an artefact: its settings, and the names of what it is made from."""

import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from pipeline.catalog import PAGES, Catalog
from pipeline.recipes import Start
from pipeline.registry import INSTANCES, PROBES
from pipeline.report.inventory import Artifact
from pipeline.report.settings import ReportSpec
from pipeline.sources import CorpusSpec, DatasetSpec, Source
from pipeline.spec import EvaluateSpec, FinetuneSpec, InstancesSpec, PretrainSpec, VocabSpec

_RUN = r"(?P<recipe>[^/]+)/(?P<dataset>[^/]+)/(?P<start>pretrained|random)_seed_(?P<seed>\d+)"
_OF_RECIPE = re.compile(r"(?:3_pretrain|5_finetune|6_evaluate|6_probe)/([^/]+)/")


def current_settings(artifact: Artifact, catalog: Catalog) -> dict[str, Any] | None:
    """Return what config/ says today of the settings in a stamp; None if it says nothing."""
    for pattern, read in _PLACES:
        if found := re.search(pattern, artifact.path.as_posix()):
            try:
                return read(catalog, artifact, **found.groupdict())
            except KeyError:  # not in config/ any more
                return None
    return None


def current_places(artifact: Artifact, catalog: Catalog) -> dict[str, str]:
    """Return role -> end of the path of what config/ names today; empty: it names nothing.

    Roles that are not here are those of which config/ does not tell by name.
    """
    path = artifact.path.as_posix()
    if (found := re.search(r"2_instances/([^/]+)/", path)) and found[1] in catalog.instances:
        return {"vocabulary": f"1_vocab/{catalog.instances[found[1]].vocabulary}.json"}
    found = _OF_RECIPE.search(path)
    if not found or found[1] not in catalog.zoo:
        return {}
    recipe = catalog.zoo[found[1]]
    places = {"vocabulary": f"1_vocab/{catalog.vocabulary_of(found[1])}.json"}
    if artifact.stage == "pretrain" and recipe.instances:
        places["instances"] = f"2_instances/{recipe.instances}/manifest.json"
        places["init"] = f"4_average/{recipe.initial}.safetensors" if recipe.initial else ""
    return places


def current_corpora(artifact: Artifact, catalog: Catalog) -> list[str] | None:
    """Return the corpora that config/ names today for an artefact; None if it says nothing."""
    path = artifact.path.as_posix()
    try:
        if found := re.search(r"1_vocab/([^/]+)\.json$", path):
            built = catalog.vocabularies[found[1]].built
            return list(built.corpora) if built else []
        if found := re.search(r"2_instances/([^/]+)/manifest\.json$", path):
            return list(catalog.instances[found[1]].corpora)
        if found := re.search(rf"6_evaluate/{_RUN}\.json$", path):
            return catalog.corpora_of(found["recipe"]) if found["start"] == "pretrained" else []
    except KeyError:  # not in config/ any more
        pass
    return None


def current_digest(artifact: Artifact, catalog: Catalog) -> str | None:
    """Return the digest that a record of checked recipes would state today."""
    names = artifact.stamp.get("settings", {}).get("recipes", [])
    if artifact.stage != "check" or not set(names) <= set(catalog.zoo):
        return None
    return catalog.digest(names)


def _vocab(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any]:
    return _dump(VocabSpec, catalog.vocab_spec(name))


def _instances(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any]:
    spec = InstancesSpec(**catalog.instances_spec(name))
    _, config = INSTANCES.configure({"name": spec.kind, **spec.options()}, "instances")
    fields = spec.model_dump(mode="json", exclude={"max_unknown", *spec.options()})
    return {**fields, **config.model_dump(mode="json")}


def _pretrain(catalog: Catalog, artifact: Artifact, recipe: str) -> dict[str, Any] | None:
    if not catalog.zoo[recipe].is_trained:
        return None
    return _dump(PretrainSpec, catalog.pretrain_spec(recipe))


def _average(catalog: Catalog, artifact: Artifact, recipe: str) -> dict[str, Any] | None:
    section = catalog.zoo[recipe]
    return {"steps": section.steps[-section.average.last :]} if section.is_trained else None


def _finetune(
    catalog: Catalog, artifact: Artifact, recipe: str, dataset: str, start: Start, seed: str
) -> dict[str, Any]:
    now = _dump(FinetuneSpec, catalog.finetune_spec(recipe, dataset, start, int(seed)))
    # Left to the model that it starts from.
    then = artifact.stamp.get("settings", {})
    return {key: then.get(key) if value is None else value for key, value in now.items()}


def _evaluate(catalog: Catalog, artifact: Artifact, **run: str) -> dict[str, Any]:
    return _dump(EvaluateSpec, {})


def _probe(catalog: Catalog, artifact: Artifact, recipe: str, probe: str) -> dict[str, Any]:
    section = catalog.zoo[recipe].probes[probe]
    kind, config = PROBES.configure(section.probe.section(), f"probes.{probe}.probe")
    settings: dict[str, Any] = kind.settings(config, section.lines)
    return settings


def _check(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any]:
    return {"recipes": catalog.selected(name)}


def _report(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any]:
    return _dump(ReportSpec, catalog.report_spec(catalog.rows_of(PAGES[name])))


def _vocabulary(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any] | None:
    if not catalog.vocabularies[name].imported:
        return None
    return _fetched(Source, catalog.vocabulary_source(name), artifact)


def _corpus(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any]:
    return _fetched(CorpusSpec, catalog.corpus_spec(name), artifact)


def _dataset(catalog: Catalog, artifact: Artifact, name: str) -> dict[str, Any]:
    return _fetched(DatasetSpec, catalog.dataset_spec(name), artifact)


def _fetched(model: type[BaseModel], values: dict[str, Any], artifact: Artifact) -> dict[str, Any]:
    """Return the settings of a fetched text; what its stamp leaves out is for people."""
    now = model(**values).model_dump(mode="json", exclude_none=True)
    known = {*artifact.stamp.get("settings", {}), *values}
    return {key: value for key, value in now.items() if key in known}


def _dump(model: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    return model(**values).model_dump(mode="json")


_PLACES: tuple[tuple[str, Callable[..., dict[str, Any] | None]], ...] = (
    (r"0_check/(?P<name>all|zoo|zoo_mini)\.json$", _check),
    (r"1_vocab/(?P<name>[^/]+)\.json$", _vocab),
    (r"2_instances/(?P<name>[^/]+)/[^/]+\.json$", _instances),
    (r"(?:3_pretrain|state/pretrain)/(?P<recipe>[^/]+)/(?:.+/)?step_[^/]+$", _pretrain),
    (r"4_average/(?P<recipe>[^/]+)\.safetensors$", _average),
    (rf"5_finetune/{_RUN}\.safetensors$", _finetune),
    (rf"state/finetune/{_RUN}/", _finetune),
    (rf"6_evaluate/{_RUN}\.json$", _evaluate),
    (r"6_probe/(?P<recipe>[^/]+)/(?P<probe>[^/]+)\.json$", _probe),
    (r"7_report/(?P<name>report|report_zoo|report_zoo_mini)\.json$", _report),
    (r"corpora/(?P<name>[^/]+)\.ledger\.json$", _corpus),
    (r"datasets/(?P<name>[^/]+)/ledger\.json$", _dataset),
    (r"vocabularies/(?P<name>[^/]+)\.ledger\.json$", _vocabulary),
)
