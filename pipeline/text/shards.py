"""Shards: rows of ids in Arrow files, mapped into memory, their digests checked before use.

A folder holds shard_00000.arrow ..., held_out_00000.arrow ... and manifest.json, which lists them
with their digests. Lists are stored with offsets, never padded, in the narrowest unsigned type.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ArtifactError, ConfigError, DataError, printable
from pipeline.strict import canonical_json, parse_json
from pipeline.text.manifest import (
    IDS,
    ColumnType,
    Manifest,
    ShardFile,
    check_files,
    note_strangers,
    read_manifest,
)
from pipeline.text.rows import Column, Ragged, Rows, concatenate_columns

BATCH_TOKENS = 2 << 20


def arrow_schema(
    columns: Mapping[str, ColumnType], vocab_size: int, stamp: Mapping[str, Any]
) -> pa.Schema:
    """Return the schema of a shard: no nulls, ids in the narrowest type, the stamp as metadata."""
    ids = pa.from_numpy_dtype(np.min_scalar_type(vocab_size - 1))
    fields = [
        pa.field(name, pa.list_(pa.field("item", ids, nullable=False)), nullable=False)
        if kind == IDS
        else pa.field(name, pa.type_for_alias(kind), nullable=False)
        for name, kind in columns.items()
    ]
    return pa.schema(fields, metadata={"stamp": canonical_json(stamp)})


class ShardWriter:
    """Writes tables of rows to one Arrow file, in batches of about BATCH_TOKENS ids."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.rows = 0
        self.tokens = 0
        self._schema = schema
        self._pending: list[dict[str, Column]] = []
        self._pending_tokens = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._file = pa.ipc.new_file(self._sink, schema)

    def append(self, table: Mapping[str, Column]) -> None:
        """Add rows; the columns of `table` are those of the schema."""
        narrow = {field.name: _narrow(table[field.name], field.type) for field in self._schema}
        lists = [column for column in narrow.values() if isinstance(column, Ragged)]
        self.rows += len(lists[0])
        self._pending.append(narrow)
        self._pending_tokens += sum(len(column.values) for column in lists)
        if self._pending_tokens >= BATCH_TOKENS:
            self._flush()

    def close(self) -> None:
        """Write what is pending and the end of the file."""
        self._flush()
        self._file.close()
        self._sink.close()

    def _flush(self) -> None:
        if not self._pending:
            return
        arrays = [
            _arrow_array([table[field.name] for table in self._pending], field.type)
            for field in self._schema
        ]
        self._file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self.tokens += self._pending_tokens
        self._pending, self._pending_tokens = [], 0


def _narrow(column: Column, kind: pa.DataType) -> Column:
    if isinstance(column, Ragged):
        return Ragged(column.values.astype(kind.value_type.to_pandas_dtype()), column.offsets)
    return column.astype(kind.to_pandas_dtype())


def _arrow_array(parts: Sequence[Any], kind: pa.DataType) -> pa.Array:
    # From buffers, since pa.array would import pandas where it is installed.
    if not pa.types.is_list(kind):
        values = np.concatenate(parts)
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    values = np.concatenate([part.values for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    child = _arrow_array([values], kind.value_type)
    buffers = [None, pa.py_buffer(offsets)]
    return pa.Array.from_buffers(kind, len(lengths), buffers, children=[child])


class InstanceSet:
    """The rows of a folder of shards, or its held-out rows, mapped into memory.

    Rows are numbered through the shards in order. Opening checks every file's digest.
    """

    def __init__(self, folder: Path, manifest: Manifest, held_out: bool):
        self.folder = folder
        self.manifest = manifest.model_dump()
        self.kind = manifest.kind
        self.vocabulary_digest = manifest.vocabulary
        self.num_rows = manifest.held_out_rows if held_out else manifest.rows
        self.num_tokens = manifest.held_out_tokens if held_out else manifest.tokens
        self.held_out = None
        if not held_out and manifest.held_out_rows:
            self.held_out = InstanceSet(folder, manifest, held_out=True)
        self._batches: list[_Batch] = []
        for entry in manifest.shards:
            path, part = folder / entry.part(held_out).file, entry.part(held_out)
            self._batches += _open_shard(path, part, manifest)
        rows = [batch.num_rows for batch in self._batches]
        self._first_rows = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    @classmethod
    def open(cls, folder: Path) -> "InstanceSet":
        """Return the set in `folder`, every shard's digest and structure checked.

        Raises MissingError (a shard is gone), ArtifactError (bytes differ), DataError (Arrow of
        another shape), UnsafeError (names that leave the folder), ConfigError (another stage's).
        """
        manifest = read_manifest(folder)
        for held_out in (False, True):
            check_files(folder, [entry.part(held_out) for entry in manifest.shards])
        note_strangers(folder, manifest)
        return cls(folder, manifest, held_out=False)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int32: tokens in each row."""
        parts = [np.diff(batch.columns["token_ids"].offsets) for batch in self._batches]
        return np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32, copy=False)

    def rows(self, indices: np.ndarray) -> Rows:
        """Return the rows `indices`, (B,) int64, in that order; a row may be asked twice.

        Raises DataError for an id outside the vocabulary.
        """
        if not len(indices):
            return Rows(np.zeros(0, np.int64), self._no_rows())
        owners = np.searchsorted(self._first_rows, indices, side="right") - 1
        order = np.argsort(owners, kind="stable")
        bounds = np.flatnonzero(np.diff(owners[order])) + 1
        parts = [
            self._batches[owners[group[0]]].take(
                indices[group] - self._first_rows[owners[group[0]]]
            )
            for group in np.split(order, bounds)
            if len(group)
        ]
        columns = concatenate_columns(parts)
        for name, column in columns.items():
            if isinstance(column, Ragged) and len(column.values):
                self._check_ids(column, name, indices[order])
        rows = Rows(np.asarray(indices)[order], columns)
        return rows if len(parts) == 1 else rows.take(np.argsort(order, kind="stable"))

    def _no_rows(self) -> dict[str, Column]:
        empty = Ragged(np.zeros(0, np.int64), np.zeros(1, np.int64))
        columns = self.manifest["columns"].items()
        return {name: empty if kind == IDS else np.zeros(0, kind) for name, kind in columns}

    def _check_ids(self, column: Ragged, name: str, indices: np.ndarray) -> None:
        if column.values.max() < self.manifest["vocab_size"]:
            return
        position = int(np.argmax(column.values >= self.manifest["vocab_size"]))
        row = indices[np.searchsorted(column.offsets, position, side="right") - 1]
        raise DataError(
            f"{self.folder}: row {row}, column {name}: id {column.values[position]} is not in a "
            f"vocabulary of {self.manifest['vocab_size']}; build the instances again"
        )


class _Batch:
    """One record batch as NumPy arrays over the mapped file."""

    def __init__(self, columns: dict[str, Any], num_rows: int):
        self.columns = columns
        self.num_rows = num_rows

    def take(self, rows: np.ndarray) -> dict[str, Column]:
        return {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.columns.items()
        }


def _open_shard(path: Path, part: ShardFile, manifest: Manifest) -> list[_Batch]:
    """Return the batches of a file whose digest is checked; its structure is checked here."""
    try:
        data = pa.memory_map(str(path)).read_buffer()
        reader = pa.ipc.open_file(pa.BufferReader(data))
        _check_schema(reader.schema, path, manifest)
        tables = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        batches = [_map_batch(table, data, path) for table in tables]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise DataError(f"{path}: {_detect(path)}: {printable(error)}") from None
    for name, found in (
        ("rows", sum(batch.num_rows for batch in batches)),
        ("tokens", sum(_count_tokens(batch) for batch in batches)),
    ):
        if found != getattr(part, name):
            raise ArtifactError(
                f"{path}: {found} {name}, the manifest says {getattr(part, name)}; build it again"
            )
    return batches


def _count_tokens(batch: _Batch) -> int:
    return sum(
        len(column.values) for column in batch.columns.values() if isinstance(column, Ragged)
    )


def _detect(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        return "a Parquet file, not an Arrow file"
    if head.startswith(b"\xff\xff\xff\xff"):
        return "an Arrow stream, not an Arrow file"
    return "not a readable Arrow file"


def _check_schema(schema: pa.Schema, path: Path, manifest: Manifest) -> None:
    expected = arrow_schema(manifest.columns, manifest.vocab_size, {})
    ids = schema.field("token_ids").type if "token_ids" in schema.names else None
    if ids is not None and pa.types.is_list(ids) and pa.types.is_unsigned_integer(ids.value_type):
        wanted = expected.field("token_ids").type.value_type
        if ids.value_type != wanted:
            raise ConfigError(
                f"{path}: ids of type {ids.value_type}, a vocabulary of {manifest.vocab_size} "
                f"takes {wanted}; build the instances with this vocabulary"
            )
    if not schema.equals(expected):
        shown = [printable(str(item).replace("\n", ", "), 300) for item in (schema, expected)]
        raise DataError(f"{path}: schema is {shown[0]}; expected {shown[1]}")
    stamp = parse_json((schema.metadata or {}).get(b"stamp", b"{}").decode(), str(path), DataError)
    if stamp.get("settings") != manifest.stamp.get("settings"):
        raise ConfigError(f"{path}: made with other settings than the manifest's; build it again")


def _map_batch(table: pa.RecordBatch, data: pa.Buffer, path: Path) -> _Batch:
    columns: dict[str, Any] = {}
    for name, array in zip(table.schema.names, table.columns, strict=True):
        if array.null_count or array.offset:
            raise DataError(f"{path}: column {name} has nulls or an offset; not a shard of ours")
        for buffer in array.buffers():
            if buffer is not None and buffer.size and not _within(buffer, data):
                raise DataError(f"{path}: column {name} is compressed or byte-swapped, not mapped")
        if pa.types.is_list(array.type):
            columns[name] = _checked_lists(array, name, path)
        else:
            columns[name] = _numpy(array)
    return _Batch(columns, table.num_rows)


def _within(buffer: pa.Buffer, data: pa.Buffer) -> bool:
    return data.address <= buffer.address <= data.address + data.size - buffer.size


def _numpy(array: pa.Array) -> np.ndarray:
    """Return the values of an array of numbers without nulls, over the mapped file."""
    numbers = np.dtype(array.type.to_pandas_dtype())
    buffer = array.buffers()[1]
    if buffer is None or buffer.size < len(array) * numbers.itemsize:
        return np.zeros(0, numbers)
    return np.frombuffer(buffer, numbers, len(array))


def _checked_lists(array: pa.Array, name: str, path: Path) -> Ragged:
    values = _numpy(array.values)
    buffer = array.buffers()[1]
    if buffer is None or buffer.size < 4 * (len(array) + 1):
        raise DataError(f"{path}: column {name}: offsets are missing; build it again")
    offsets = np.frombuffer(buffer, np.int32, len(array) + 1)
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if len(falls):
        raise DataError(f"{path}: column {name}, row {falls[0]}: negative length; build it again")
    if offsets[0] != 0 or offsets[-1] != len(values):
        raise DataError(f"{path}: column {name}: offsets do not span its {len(values)} values")
    return Ragged(values, offsets)
