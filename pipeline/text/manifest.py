"""The manifest of an instance set: its files with their digests, and the conservation ledger."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipeline.artifacts import digest_file, read_json_artifact
from pipeline.errors import ArtifactError, DataError, MissingError, UnsafeError, printable
from pipeline.registry import describe
from pipeline.spec import Name, Natural, Settings, Tokenizer

MANIFEST = "manifest.json"
IDS = "ids"

ColumnType = Literal["ids", "uint8", "uint16", "uint32"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def shard_name(shard: int, held_out: bool = False) -> str:
    """Return the file name of a shard."""
    return f"{'held_out' if held_out else 'shard'}_{shard:05d}.arrow"


class ShardFile(Settings):
    """What the manifest says of a file."""

    file: str
    """Name beside the manifest."""
    rows: Natural
    """Rows in it."""
    tokens: Natural
    """Ids in it, over all columns of lists."""
    bytes: Natural
    """Its size."""
    digest: Digest
    """xxh3-128 of the file."""


class ShardEntry(Settings):
    """The two files of a shard, in the manifest's flat form."""

    file: str
    """File with the training rows; the fields without prefix are its."""
    rows: Natural
    """Rows in it."""
    tokens: Natural
    """Ids in it."""
    bytes: Natural
    """Its size."""
    digest: Digest
    """xxh3-128 of the file."""
    held_out_file: str
    """File with the rows of held-out documents."""
    held_out_rows: Natural
    """Rows in it."""
    held_out_tokens: Natural
    """Ids in it."""
    held_out_bytes: Natural
    """Its size."""
    held_out_digest: Digest
    """xxh3-128 of the file."""

    def part(self, held_out: bool) -> ShardFile:
        """Return one of the two files."""
        prefix = "held_out_" if held_out else ""
        return ShardFile(**{key: getattr(self, prefix + key) for key in ShardFile.model_fields})


class Manifest(Settings):
    """The joined record of an instance set."""

    stamp: dict[str, Any]
    """What determined the content."""
    kind: Name
    """Instance kind."""
    vocabulary: Digest
    """Digest of the vocabulary."""
    vocab_size: Annotated[int, Field(ge=1)]
    """Its size; decides the type of the ids."""
    tokenizer: Tokenizer
    """Tokenizer of the text."""
    lowercase: bool
    """Whether it was lower-cased."""
    seq_length: Annotated[int, Field(ge=1)]
    """Longest row in tokens."""
    columns: dict[str, ColumnType]
    """Column name to type; `ids`: a list of ids."""
    shards: Annotated[list[ShardEntry], Field(min_length=1)]
    """The files, by number."""
    rows: Natural
    """Training rows in all."""
    tokens: Natural
    """Ids in them."""
    held_out_rows: Natural
    """Held-out rows in all."""
    held_out_tokens: Natural
    """Ids in them."""
    ledger: dict[str, Any]
    """Documents, sentences and tokens in, out, and dropped by reason."""
    corpora: list[dict[str, Any]]
    """The ledgers of the corpora, as fetch wrote them."""


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an instance set, its digest, types, names and totals checked."""
    path = folder / MANIFEST
    if not path.exists():
        raise MissingError(f"{path}: no such file; `instances --join` writes it")
    try:
        manifest = Manifest(**read_json_artifact(path, "instances"))
    except ValidationError as error:
        raise DataError(*describe(error, str(path))) from None
    for number, entry in enumerate(manifest.shards):
        for held_out in (False, True):
            _check_name(entry.part(held_out).file, shard_name(number, held_out), path)
    for total in ("rows", "tokens", "held_out_rows", "held_out_tokens"):
        found = sum(getattr(entry, total) for entry in manifest.shards)
        if found != getattr(manifest, total):
            raise ArtifactError(
                f"{path}: {total} {getattr(manifest, total)}, shards sum to {found}"
            )
    if manifest.columns.get("token_ids") != IDS:
        raise DataError(f"{path}: columns: no token_ids of type ids")
    return manifest


def _check_name(found: str, expected: str, path: Path) -> None:
    if "/" in found or "\\" in found or ".." in found:
        raise UnsafeError(f"{path}: shard '{printable(found)}' is not a plain file name")
    if found != expected:
        raise DataError(f"{path}: shard '{printable(found)}' stands where {expected} belongs")


def check_files(folder: Path, parts: Sequence[ShardFile]) -> None:
    """Raise unless every file is there with the size and the digest that the manifest states."""
    expected = {part.digest: part.file for part in parts}
    for part in parts:
        path = folder / part.file
        if not path.is_file():
            raise MissingError(f"{path}: no such file; the manifest lists it, build it again")
        if (size := path.stat().st_size) != part.bytes:
            raise ArtifactError(f"{path}: {size} bytes, the manifest says {part.bytes}")
        if (found := digest_file(path)) != part.digest:
            other = expected.get(found)
            hint = f"it holds what {other} should" if other else "damaged, build it again"
            raise ArtifactError(
                f"{path}: digest {found[:12]}..., the manifest says {part.digest[:12]}...; {hint}"
            )


def note_strangers(folder: Path, manifest: Manifest) -> None:
    """Warn of Arrow files that the manifest does not list; they are ignored."""
    listed = {entry.part(held_out).file for entry in manifest.shards for held_out in (False, True)}
    for path in sorted(folder.glob("*.arrow")):
        if path.name not in listed:
            print(f"warning: {path}: not in the manifest, ignored", file=sys.stderr)
