"""Artefacts by digest: what made a file, from which files, and what became of it.

Only records are read (JSON, headers of weights, records beside texts), never the bulk behind them.
Links are found by the digests in stamps, not by the names of files.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import (
    TEMPORARY_MARK,
    check_stamp,
    digest_value,
    read_json_artifact,
    read_tensor_stamp,
)
from pipeline.errors import MissingError, PipelineError

# Folders below results/ that hold facts of a run, not artefacts.
RUN_FOLDERS = frozenset({"logs", "benchmarks", "state"})


@dataclass(frozen=True)
class Artifact:
    """A file with what is known of its making."""

    path: Path
    digest: str
    """Its own: SHA-256 of weights, xxh3-128 of a record."""
    digests: frozenset[str]
    """Digests under which stamps of later files may name it."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What it says of itself: a JSON object, the metadata of weights, the record beside a text."""

    @property
    def stamp(self) -> Mapping[str, Any]:
        """What determined its content; empty for a file from outside."""
        return self.record.get("stamp", {})

    @property
    def stage(self) -> str:
        """Stage that made it; empty for a file from outside."""
        return str(self.stamp.get("stage", ""))

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """(role, digest) of every input: those of the stamp, then the ledgers of corpora."""
        ledgers = self.record.get("corpora", [])
        return [*_flatten(self.stamp.get("inputs", {})), *map(_ledger_input, ledgers)]


def _flatten(inputs: Any, role: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(inputs, Mapping):
        for key, value in inputs.items():
            yield from _flatten(value, f"{role}.{key}" if role else str(key))
    elif isinstance(inputs, list):
        for value in inputs:
            yield from _flatten(value, role)
    elif isinstance(inputs, str):
        yield role, inputs


def _ledger_input(ledger: Mapping[str, Any]) -> tuple[str, str]:
    """Records of texts carry the ledgers of their corpora on, each with the corpus's name."""
    own = {key: value for key, value in ledger.items() if key != "name"}
    return f"corpus {ledger.get('name', '')}", digest_value(own)


@dataclass(frozen=True)
class Link:
    """A step back: the role of an input, its digest, and the file of that digest if it is here."""

    role: str
    digest: str
    source: Artifact | None


def read_artifact(path: Path) -> Artifact | None:
    """Return what a file says of itself, None if it is of no kind of this pipeline.

    Raises what `read_json_artifact` and `read_tensor_stamp` raise; weights are not digested.
    """
    if path.suffix == ".safetensors":
        record = read_tensor_stamp(path, verify=False)
        check_format(record, path)
        return Artifact(path, record["weights"], frozenset({record["weights"]}), record)
    if path.suffix == ".json":
        record = read_json_artifact(path)
        check_format(record, path)
        own = digest_value(record)
        return Artifact(path, own, frozenset({own, *_vouched(record)}), record)
    return None


def check_format(record: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError if a file was made by a newer version than this one reads."""
    stamp = record.get("stamp", {})
    check_stamp(stamp, stamp.get("stage"), path)


def _vouched(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the digests of the files that a record stands for."""
    stage = record.get("stamp", {}).get("stage", "")
    for name in _VOUCHED.get(stage, ()):
        if isinstance(record.get(name), str):
            yield record[name]
    if stage == "fetch":
        for part in record.get("parts", {}).values():
            yield from (part[name] for name in ("digest", "sha256") if name in part)


_VOUCHED = {
    "vocab": ("vocabulary",),
    "pretrain": ("weights", "optimizer"),
    "fetch": ("text",),
    "evaluate": ("predictions",),
}


def source_pattern(artifact: Artifact, role: str) -> str | None:
    """Return where the input of a role stands, as the end of a path; None if nobody can say."""
    parts = artifact.path.with_suffix("").parts
    if artifact.stage == "evaluate" and role == "model":
        return "/".join(("5_finetune", *parts[-3:])) + ".safetensors"
    if artifact.stage == "probe" and role == "model":
        return f"4_average/{parts[-2]}.safetensors" if "6_probe" in parts[-3:-2] else None
    if artifact.stage == "finetune" and role == "init":
        return f"4_average/{parts[-3]}.safetensors" if len(parts) >= 3 else None
    if artifact.stage == "average" and role == "models":
        return f"3_pretrain/{parts[-1]}/step_*"
    if role in {"train", "dev", "data"}:
        return f"datasets/{parts[-2]}/ledger.json" if len(parts) >= 2 else None
    if role.startswith("corpus "):
        return f"corpora/{role.removeprefix('corpus ')}.ledger.json"
    if artifact.stage == "fetch" and re.fullmatch(r"[\w.-]+/(train|dev|test)", role):
        return f"datasets/{role.partition('/')[0]}/ledger.json"
    places = {"instances": "2_instances/*/manifest.json", "vocabulary": "1_vocab/*.json"}
    return places.get(role)


class Inventory:
    """The artefacts of some folders, to be found by digest."""

    def __init__(
        self,
        artifacts: Iterable[Artifact],
        problems: Mapping[Path, PipelineError] | None = None,
    ):
        self.artifacts = sorted(artifacts, key=lambda a: (a.path.suffix == ".json", a.path))
        self.problems = dict(problems or {})
        """What is wrong with each file that could not be read."""
        self._by_digest: dict[str, list[Artifact]] = {}
        self._by_name: dict[str, list[Artifact]] = {}
        self._placed: dict[str, list[Artifact]] = {}
        for artifact in self.artifacts:
            self._by_name.setdefault(artifact.path.name, []).append(artifact)
            for digest in artifact.digests:
                self._by_digest.setdefault(digest, []).append(artifact)

        self.by_path = {artifact.path: artifact for artifact in self.artifacts}

    def at(self, path: Path) -> Artifact:
        """Return the artefact at a path. Raises what reading it raised, or MissingError."""
        if path in self.problems:
            raise self.problems[path]
        if path not in self.by_path:
            raise MissingError(f"{path}: no such file, or none of this pipeline")
        return self.by_path[path]

    def find(self, digest: str, pattern: str | None = None) -> Artifact | None:
        """Return a file of this digest: one at a place, or weights before their record."""
        found = self._by_digest.get(digest, [])
        placed = [artifact for artifact in found if pattern and artifact.path.match(pattern)]
        return next(iter([*placed, *found]), None)

    def placed(self, pattern: str) -> list[Artifact]:
        """Return the files whose paths end as a pattern says."""
        if pattern not in self._placed:
            name = pattern.rpartition("/")[2]
            some = self.artifacts if "*" in name else self._by_name.get(name, [])
            self._placed[pattern] = [artifact for artifact in some if artifact.path.match(pattern)]
        return self._placed[pattern]

    def links(self, artifact: Artifact) -> list[Link]:
        """Return the inputs of an artefact, each with its file where it is here."""
        return [
            Link(role, digest, self.find(digest, source_pattern(artifact, role)))
            for role, digest in artifact.inputs
        ]

    def ancestors(self, artifact: Artifact) -> list[Artifact]:
        """Return everything an artefact was made from, nearest first, each once."""
        found: dict[Path, Artifact] = {}
        queue = [artifact]
        while queue:
            for link in self.links(queue.pop(0)):
                if link.source and link.source.path not in found:
                    found[link.source.path] = link.source
                    queue.append(link.source)
        return list(found.values())


def scan(*roots: Path) -> Inventory:
    """Return the inventory of folders; what cannot be read becomes a problem, not an error."""
    artifacts: list[Artifact] = []
    problems: dict[Path, PipelineError] = {}
    for path in sorted({path for root in roots for path in artifact_files(root)}):
        try:
            artifact = read_artifact(path)
        except PipelineError as error:
            problems[path] = error
            continue
        if artifact:
            artifacts.append(artifact)
    return Inventory(artifacts, problems)


def artifact_files(root: Path) -> Iterator[Path]:
    """Yield the files that may be artefacts: none hidden, none of a folder of run facts.

    A file is yielded itself; nothing for a path that does not exist.
    """
    if root.is_file():
        yield root
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") or TEMPORARY_MARK in part for part in parts)
        if not hidden and RUN_FOLDERS.isdisjoint(parts) and path.is_file():
            yield path
