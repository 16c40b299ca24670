"""What made a file, from what, and what has changed since: settings, and files at their places."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts import digest_file
from pipeline.catalog import Catalog
from pipeline.errors import MissingError, printable
from pipeline.report.inventory import RUN_FOLDERS, Artifact, Inventory, Link, source_pattern
from pipeline.report.today import (
    current_corpora,
    current_digest,
    current_places,
    current_settings,
)

LinkState = Literal["as it was", "changed", "not here", "not a file"]

# Digests of content, not of a file that could be found.
CONTENT_ROLES = frozenset({"shard", "text", "corpora", "published", "settings"})

# Stage -> what its jobs make, by the name of a job's log and benchmark.
_MADE = {
    "check": "0_check/{}.json",
    "vocab": "1_vocab/{}.json",
    "instances": "2_instances/{}.json",
    "pretrain": "3_pretrain/{}.json",
    "average": "4_average/{}.safetensors",
    "finetune": "5_finetune/{}.safetensors",
    "evaluate": "6_evaluate/{}.json",
    "probe": "6_probe/{}.json",
    "report": "7_report/{}.json",
    "convert": "models/{}/model.safetensors",
}


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
    """Return the artefact that tells of a file: itself, its record, or the result of its job.

    The record stands beside it, or states its digest wherever it is.

    Raises MissingError if there is none, and what reading it raised.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file")
    if (made := _made_by_job(path)) is not None:
        if found := inventory.placed(made):
            return found[-1]
        raise MissingError(f"{path}: of a job whose result {made} is not here")
    stem = path.name.removesuffix(".predictions.tsv") if path.suffix == ".tsv" else path.stem
    shard = stem.replace("held_out_", "shard_") if path.suffix == ".arrow" else stem
    names = [path.name, f"{shard}.json", f"{stem}.ledger.json", "ledger.json"]
    folder = path.parent if path.is_file() else path
    for name in names if path.is_file() else ["manifest.json", "ledger.json"]:
        if artifact := inventory.by_path.get(folder / name):
            return artifact
        if folder / name in inventory.problems:
            raise inventory.problems[folder / name]
    if not path.is_file():
        raise MissingError(f"{path}: a folder; name a file in it")
    if known := inventory.find(digest_file(path)):
        return known
    raise MissingError(f"{path}: no record of its making in it or beside it")


def _made_by_job(path: Path) -> str | None:
    """Return the end of the path of what a job made, from its log, metrics or benchmark."""
    places = [n for n, part in enumerate(path.parts) if part in RUN_FOLDERS - {"state"}]
    if not places or not path.is_file():
        return None
    stage, *job = *path.parts[places[-1] + 1 : -1], path.stem
    for sign in ("tensorboard", "metrics"):
        job = job[: job.index(sign)] if sign in job else job
    if stage == "pretrain" and len(job) == 1:
        job.append("step_*")
    if stage == "fetch" and len(job) == 2:
        name = f"{job[1]}/ledger.json" if job[0] == "datasets" else f"{job[1]}.ledger.json"
        return f"{job[0]}/{name}"
    name = "/".join(job)
    if stage == "instances" and job[-1] == "join":
        name = f"{job[0]}/manifest"
    return _MADE[stage].format(name) if stage in _MADE else None


def note_of(path: Path, artifact: Artifact) -> str | None:
    """Return how an artefact tells of another file, None if it is the file itself."""
    if path == artifact.path:
        return None
    if _made_by_job(path) is not None:
        told = f"facts of the run that made {artifact.path}; nothing makes them stale"
    else:
        told = f"{artifact.path} tells of it"
    return f"{printable(path, 1000)}: {told}"


@dataclass(frozen=True)
class Reason:
    """Why a file would be made again."""

    path: Path
    text: str


def reasons(artifact: Artifact, inventory: Inventory, catalog: Catalog | None) -> list[Reason]:
    """Return what has changed for a file and all it was made from, the file's own reasons first."""
    found = []
    for each in [artifact, *inventory.ancestors(artifact)]:
        texts = [*_changed_inputs(each, inventory)]
        if catalog:
            texts = [*_changed_settings(each, catalog), *texts]
            texts += _changed_names(each, inventory, catalog)
        found += [Reason(each.path, text) for text in dict.fromkeys(texts)]
    return found


def _changed_settings(artifact: Artifact, catalog: Catalog) -> Iterator[str]:
    then = artifact.stamp.get("settings", {})
    now = current_settings(artifact, catalog)
    if now is not None:
        yield from differences(now, then, "settings")
    digest = current_digest(artifact, catalog)
    if digest and (digest, "settings") not in [(d, role) for role, d in artifact.inputs]:
        yield "settings: those of its recipes are others in config/ now"


def _changed_inputs(artifact: Artifact, inventory: Inventory) -> Iterator[str]:
    for link in inventory.links(artifact):
        state, path = link_state(artifact, link, inventory)
        if state == "changed":
            yield f"{link.role}: was {link.digest[:12]}..., {path} is another"
        elif artifact.stage == "report" and link.role == "metrics" and link.source is None:
            yield f"{link.role}: was {link.digest[:12]}..., no scores here are those"


def _changed_names(artifact: Artifact, inventory: Inventory, catalog: Catalog) -> Iterator[str]:
    """Yield the inputs of which config/ names others today, whatever their content."""
    digests = dict(artifact.inputs)
    for role, pattern in current_places(artifact, catalog).items():
        there = inventory.placed(pattern) if pattern else []
        known = role in digests and any(digests[role] in other.digests for other in there)
        if (role in digests or pattern) and not known and (there or not pattern):
            was = f"{digests[role][:12]}..." if role in digests else "none"
            yield f"{role}: was {was}, config/ names {there[0].path if there else 'none'} now"
    then = [role.removeprefix("corpus ") for role in digests if role.startswith("corpus ")]
    now = current_corpora(artifact, catalog)
    # Records of texts without ledgers do not name them.
    if now is not None and now != then and (then or artifact.stage == "evaluate"):
        yield f"corpora: {', '.join(then) or 'none'} -> {', '.join(now) or 'none'}"


def differences(now: Any, then: Any, key: str) -> Iterator[str]:
    """Yield `key: then -> now` for every leaf in which two settings differ, by key."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for name in sorted({*now, *then}):
            yield from differences(now.get(name), then.get(name), f"{key}.{name}")
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then) and now != then:
        for place, pair in enumerate(zip(now, then, strict=True)):
            yield from differences(*pair, f"{key}.{place}")
    elif now != then:
        yield f"{key}: {printable(then)} -> {printable(now)}"
