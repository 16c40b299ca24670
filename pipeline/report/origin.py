"""What made a file, from what, and what has changed since: settings, and files at their places."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.catalog import Catalog
from pipeline.errors import MissingError, printable
from pipeline.recipes import Start
from pipeline.registry import INSTANCES, PROBES
from pipeline.report.inventory import Artifact, Inventory, Link, source_pattern
from pipeline.sources import CorpusSpec, DatasetSpec
from pipeline.spec import FinetuneSpec, InstancesSpec, PretrainSpec, VocabSpec

LinkState = Literal["as it was", "changed", "not here", "not a file"]

# Digests of content, not of a file that could be found.
CONTENT_ROLES = frozenset({"shard", "text", "corpora", "published"})


def link_state(
    artifact: Artifact, link: Link, inventory: Inventory
) -> tuple[LinkState, Path | None]:
    """Return how an input is, and its file: the one it was, or the one that is in its place."""
    pattern = source_pattern(artifact, link.role)
    there = inventory.placed(pattern) if pattern else []
    same = [other.path for other in there if link.digest in other.digests]
    if there:
        return ("as it was", same[0]) if same else ("changed", there[0].path)
    if link.source is not None:
        return "as it was", link.source.path
    return ("not a file" if link.role in CONTENT_ROLES else "not here"), None


def record_of(path: Path, inventory: Inventory) -> Artifact:
    """Return the artefact that tells of a file: the file itself or the record beside it.

    Raises MissingError if there is neither.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file")
    stem = path.name.removesuffix(".predictions.tsv") if path.suffix == ".tsv" else path.stem
    shard = stem.replace("held_out_", "shard_") if path.suffix == ".arrow" else stem
    names = [path.name, f"{shard}.json", f"{stem}.ledger.json", "ledger.json"]
    for name in names if path.is_file() else ["manifest.json", "ledger.json"]:
        folder = path.parent if path.is_file() else path
        if artifact := inventory.by_path.get(folder / name):
            return artifact
    raise MissingError(f"{path}: no record of its making in it or beside it")


@dataclass(frozen=True)
class Reason:
    """Why a file would be made again."""

    path: Path
    text: str


def reasons(artifact: Artifact, inventory: Inventory, catalog: Catalog | None) -> list[Reason]:
    """Return what has changed for a file and all it was made from, the file's own reasons first."""
    found = []
    for each in [artifact, *inventory.ancestors(artifact)]:
        now = current_settings(each, catalog) if catalog else None
        if now is not None:
            then = each.stamp.get("settings", {})
            found += [Reason(each.path, text) for text in differences(now, then, "settings")]
        for link in inventory.links(each):
            state, path = link_state(each, link, inventory)
            if state == "changed":
                text = f"{link.role}: was {link.digest[:12]}..., {path} is another"
                found.append(Reason(each.path, text))
    return found


def differences(now: Any, then: Any, key: str) -> Iterator[str]:
    """Yield `key: then -> now` for every leaf in which two settings differ, by key."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for name in sorted({*now, *then}):
            yield from differences(now.get(name), then.get(name), f"{key}.{name}")
    elif now != then:
        yield f"{key}: {printable(then)} -> {printable(now)}"


# Settings as config/ has them now -------------------------------------------------------------


def current_settings(artifact: Artifact, catalog: Catalog) -> dict[str, Any] | None:
    """Return what config/ says today of the settings in a stamp; None if it says nothing."""
    path = artifact.path.as_posix()
    for pattern, read in _PLACES:
        if found := re.search(pattern, path):
            try:
                return read(catalog, artifact, **found.groupdict())
            except KeyError:  # not in config/ any more
                return None
    return None


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


def _probe(catalog: Catalog, artifact: Artifact, recipe: str, probe: str) -> dict[str, Any]:
    section = catalog.zoo[recipe].probes[probe]
    kind, config = PROBES.configure(section.probe.section(), f"probes.{probe}.probe")
    settings: dict[str, Any] = kind.settings(config, section.lines)
    return settings


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
    (r"1_vocab/(?P<name>[^/]+)\.json$", _vocab),
    (r"2_instances/(?P<name>[^/]+)/[^/]+\.json$", _instances),
    (r"3_pretrain/(?P<recipe>[^/]+)/step_[^/]+$", _pretrain),
    (r"4_average/(?P<recipe>[^/]+)\.safetensors$", _average),
    (
        r"5_finetune/(?P<recipe>[^/]+)/(?P<dataset>[^/]+)/"
        r"(?P<start>pretrained|random)_seed_(?P<seed>\d+)\.safetensors$",
        _finetune,
    ),
    (r"6_probe/(?P<recipe>[^/]+)/(?P<probe>[^/]+)\.json$", _probe),
    (r"corpora/(?P<name>[^/]+)\.ledger\.json$", _corpus),
    (r"datasets/(?P<name>[^/]+)/ledger\.json$", _dataset),
)
