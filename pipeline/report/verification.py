"""Whether files are what they claim to be: bytes against digests, stamps against one another."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.artifacts import digest_file, read_json_artifact, read_tensor_stamp
from pipeline.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    MissingError,
    PipelineError,
    printable,
)
from pipeline.report.inventory import Artifact, Inventory, artifact_files, read_artifact
from pipeline.report.origin import link_state
from pipeline.report.seal import GENERATOR, page_digest, stated_digest
from pipeline.strict import parse_json, read_json
from pipeline.text.manifest import MANIFEST, ShardEntry, ShardFile, check_files, read_manifest
from pipeline.text.vocabulary import read_vocabulary

OPTIMIZER = "optimizer"
PREDICTIONS = ".predictions.tsv"


@dataclass(frozen=True)
class Finding:
    """What came out about one file."""

    path: Path
    kind: str
    """What it is, empty if it is of no kind of this pipeline."""
    digest: str = ""
    error: PipelineError | None = None
    """What is wrong with it."""

    @property
    def state(self) -> str:
        """In a word or two: whole, damaged, misfit, missing, refused, no digest, unknown."""
        if self.error is None:
            return "unknown" if not self.kind else "whole" if self.digest else "no digest"
        states = {ArtifactError: "damaged", ConfigError: "misfit", MissingError: "missing"}
        return states.get(type(self.error), "refused")


def verify(roots: Iterable[Path]) -> list[Finding]:
    """Return a finding for every file of `roots` (files, or folders searched), by path.

    Every byte of a file of ours is read. Then the stamps of all that is whole are compared.
    """
    files = sorted({path for root in roots for path in artifact_files(root)})
    findings: list[Finding] = []
    artifacts: list[Artifact] = []
    for path in files:
        findings += _check(path, artifacts)
    inventory = Inventory(artifacts)
    misfits = dict(_misfits(inventory))
    return [
        Finding(f.path, f.kind, f.digest, f.error or misfits.get(f.path))
        for f in sorted(findings, key=lambda finding: finding.path)
    ]


def _check(path: Path, artifacts: list[Artifact]) -> list[Finding]:
    """Return what one file, or a manifest with its shards, turns out to be."""
    checks: dict[str, Callable[[Path], tuple[str, str]]] = {
        ".safetensors": _check_weights,
        ".json": _check_record,
        ".arrow": _check_shard,
        ".txt": _check_text,
        ".tsv": _check_text,
        ".jsonl": _check_text,
        ".npy": _check_text,
        ".html": _check_page,
    }
    if path.suffix not in checks:
        return [Finding(path, "")]
    try:
        kind, digest = checks[path.suffix](path)
        if kind and (artifact := read_artifact(path)):
            artifacts.append(artifact)
    except PipelineError as error:
        return [Finding(path, "file", "", error)]
    return [Finding(path, kind, digest), *_missing_shards(path, kind)]


def _check_weights(path: Path) -> tuple[str, str]:
    """Every tensor's bytes are digested; weights of other programs are of no kind of ours."""
    try:
        record = read_tensor_stamp(path)
    except ConfigError:
        return "", ""
    return (OPTIMIZER if OPTIMIZER in path.name else "weights"), record["weights"]


def _check_record(path: Path) -> tuple[str, str]:
    value = read_json(path, ArtifactError)
    if not isinstance(value, dict) or not {"digest", "stamp"} & set(value):
        return _check_text(path)
    record = read_json_artifact(path)
    stage = str(record.get("stamp", {}).get("stage", ""))
    if path.name == MANIFEST and stage == "instances":
        read_manifest(path.parent)
        return "manifest", value["digest"]
    return f"record of {stage}" if stage else "record", value["digest"]


def _check_shard(path: Path) -> tuple[str, str]:
    """A shard is vouched for by the manifest beside it, or else by its own record."""
    for vocabulary, part in _listed(path):
        check_files(path.parent, [part])
        _check_shard_stamp(path, vocabulary)
        return "shard", part.digest
    if output := _check_output(path):
        return output
    with contextlib.suppress(PipelineError):
        if _arrow_stamp(path).get("stage") == "probe":
            return "output of probe", ""
    return "", ""


def _listed(path: Path) -> Iterator[tuple[str, ShardFile]]:
    """Yield (vocabulary, what is said of the file) from the manifest, then from the record."""
    with contextlib.suppress(PipelineError):
        manifest = read_manifest(path.parent)
        for entry in manifest.shards:
            yield from ((manifest.vocabulary, part) for part in _parts(entry, path))
    record_path = path.with_name(path.name.replace("held_out_", "shard_")).with_suffix(".json")
    with contextlib.suppress(PipelineError, KeyError, ValueError):
        record = read_json_artifact(record_path, "instances")
        vocabulary = record["stamp"]["inputs"]["vocabulary"]
        entry = ShardEntry(**record["files"])
        yield from ((vocabulary, part) for part in _parts(entry, path))


def _parts(entry: ShardEntry, path: Path) -> list[ShardFile]:
    return [part for part in (entry.part(False), entry.part(True)) if part.file == path.name]


def _arrow_stamp(path: Path) -> Any:
    try:
        with pa.memory_map(str(path)) as source:
            metadata = pa.ipc.open_file(source).schema.metadata or {}
    except pa.ArrowException as error:
        raise ArtifactError(f"{path}: not a readable Arrow file: {error}") from None
    return parse_json(metadata.get(b"stamp", b"{}").decode(), str(path), ArtifactError)


def _check_shard_stamp(path: Path, vocabulary: str) -> None:
    theirs = _arrow_stamp(path).get("inputs", {}).get("vocabulary", "none")
    if theirs != vocabulary:
        raise ConfigError(
            f"{path}: made with vocabulary {theirs[:12]}..., its manifest says "
            f"{vocabulary[:12]}...; rebuild the shards or pass the other vocabulary"
        )


def _missing_shards(path: Path, kind: str) -> Iterator[Finding]:
    if kind != "manifest":
        return
    for entry in read_manifest(path.parent).shards:
        for part in (entry.part(False), entry.part(True)):
            if not (path.parent / part.file).exists():
                missing = path.parent / part.file
                error = MissingError(
                    f"{missing}: no such file; the manifest lists it, build it again"
                )
                yield Finding(missing, "shard", part.digest, error)


def _check_output(path: Path) -> tuple[str, str] | None:
    """What a probe wrote is vouched for by the books beside it; None: there are none."""
    books = path.with_suffix(".json")
    record: dict[str, Any] = {}
    with contextlib.suppress(PipelineError):  # what is wrong with books, they are told of alone
        record = read_json_artifact(books, "probe") if books != path else {}
    if not record.get("output"):
        return None
    return _compare(path, "output of probe", digest_file(path), books, "output")


def _check_text(path: Path) -> tuple[str, str]:
    """A vocabulary is vouched for by the record beside it, a fetched text by its ledger."""
    if output := _check_output(path):
        return output
    record, ledger = path.with_suffix(".json"), path.with_suffix(".ledger.json")
    if path.name.endswith(PREDICTIONS):
        metrics = path.with_name(path.name.removesuffix(PREDICTIONS) + ".json")
        if metrics.exists() and read_json_artifact(metrics).get("predictions"):
            return _compare(path, "predictions", digest_file(path), metrics, "predictions")
        return "predictions", ""
    if path.suffix == ".txt" and record.exists():
        try:
            digest = read_vocabulary(path).digest
        except DataError as error:  # it was a vocabulary once
            raise ArtifactError(*error.problems) from None
        return _compare(path, "vocabulary", digest, record, "vocabulary")
    if ledger.exists():
        return _compare(path, "text", digest_file(path), ledger, "text")
    if (ledger := path.with_name("ledger.json")).exists():
        parts = read_json_artifact(ledger, "fetch").get("parts", {})
        if path.stem in parts and parts[path.stem].get("file") == path.name:
            return _compare(path, "data", digest_file(path), ledger, f"parts.{path.stem}.digest")
    return "", ""


def _compare(path: Path, kind: str, found: str, record: Path, key: str) -> tuple[str, str]:
    """Return (kind, digest) if the record beside a file states its digest under `key`."""
    stated: Any = read_json_artifact(record)
    for part in key.split("."):
        stated = stated[part]
    if found != stated:
        raise ArtifactError(
            f"{path}: digest {found[:12]}..., {record.name} says {stated[:12]}...; edited or "
            "damaged, build it again"
        )
    return kind, found


def _check_page(path: Path) -> tuple[str, str]:
    page = path.read_text(encoding="utf-8", errors="replace")
    stated = stated_digest(page)
    if stated is None and GENERATOR in page:
        raise ArtifactError(f"{path}: a page of this pipeline without a digest; build it again")
    if stated is None:
        return "", ""
    if (found := page_digest(page)) != stated:
        raise ArtifactError(
            f"{path}: content has digest {found[:12]}..., its own record says {stated[:12]}...; "
            "edited or damaged, build it again"
        )
    return "report", stated


# Stamps against one another --------------------------------------------------------------------


def _misfits(inventory: Inventory) -> Iterator[tuple[Path, PipelineError]]:
    """Yield (path, error) of every artefact that was made from something else than stands here."""
    for artifact in inventory.artifacts:
        for link in inventory.links(artifact):
            state, other = link_state(artifact, link, inventory)
            if state == "changed":
                problem = (
                    f"made with {printable(link.role)} {link.digest[:12]}..., {other} is another"
                )
                yield artifact.path, ConfigError(f"{artifact.path}: {problem}; build it again")
    yield from _torn_checkpoints(inventory)


def _torn_checkpoints(inventory: Inventory) -> Iterator[tuple[Path, PipelineError]]:
    """Yield weights and moments that are not those which the record beside them names."""
    records = {a.path: a for a in inventory.artifacts if a.path.suffix == ".json"}
    for artifact in inventory.artifacts:
        path = artifact.path
        if artifact.stage != "pretrain" or path.suffix != ".safetensors":
            continue
        record = records.get(path.with_name(path.name.partition(".")[0] + ".json"))
        stated = record and record.record.get(OPTIMIZER if OPTIMIZER in path.name else "weights")
        if record and stated != artifact.digest:
            yield (
                path,
                ArtifactError(
                    f"{path}: SHA-256 {artifact.digest[:12]}..., {record.path.name} says "
                    f"{str(stated)[:12]}...; they are of different runs"
                ),
            )
