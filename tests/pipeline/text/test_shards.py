"""Shards: what is written comes back by index, and nothing damaged is used."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import digest_file, make_stamp, write_json
from pipeline.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    MissingError,
    PipelineError,
    UnsafeError,
)
from pipeline.text.manifest import shard_name
from pipeline.text.rows import Ragged
from pipeline.text.shards import InstanceSet, ShardWriter, arrow_schema

COLUMNS = {"token_ids": "ids", "label": "uint32"}
STAMP = make_stamp("instances", {"kind": "labelled"}, {})


def table(rows):
    values = np.array([value for ids, _ in rows for value in ids], np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in rows])]).astype(np.int64)
    return {"token_ids": Ragged(values, offsets), "label": np.array([label for _, label in rows])}


def describe(path, rows, prefix=""):
    entry = {
        "file": path.name, "rows": len(rows), "tokens": sum(len(ids) for ids, _ in rows),
        "bytes": path.stat().st_size, "digest": digest_file(path),
    }  # fmt: skip
    return {prefix + key: value for key, value in entry.items()}


def write_shard(path, rows, vocab_size=300, columns=COLUMNS):
    writer = ShardWriter(path, arrow_schema(columns, vocab_size, STAMP))
    for at in range(0, len(rows), 2):
        writer.append(table(rows[at : at + 2]))
    writer.close()


def manifest(entries, **changes):
    totals = {
        key: sum(entry[key] for entry in entries)
        for key in ("rows", "tokens", "held_out_rows", "held_out_tokens")
    }
    return {
        "stamp": STAMP, "kind": "labelled", "vocabulary": "0" * 32, "vocab_size": 300,
        "tokenizer": "bert", "lowercase": True, "seq_length": 8, "columns": COLUMNS,
        "shards": entries, "ledger": {}, "corpora": [], **totals, **changes,
    }  # fmt: skip


def write_set(folder, shards, held_out=((),), vocab_size=300, **changes):
    """Write a set of shards, each a list of (ids, label)."""
    folder.mkdir(exist_ok=True)
    entries = []
    for number, rows in enumerate(shards):
        kept_out = held_out[number] if number < len(held_out) else ()
        entry = {}
        for prefix, part in (("", rows), ("held_out_", kept_out)):
            path = folder / shard_name(number, bool(prefix))
            write_shard(path, list(part), vocab_size)
            entry |= describe(path, part, prefix)
        entries.append(entry)
    changes = {"vocab_size": vocab_size, **changes}
    write_json(folder / "manifest.json", manifest(entries, **changes))
    return folder


ROWS = [[([1, 2, 3], 0), ([], 1), ([299], 2)], [([7, 8], 3)], []]


def read(instances, indices):
    rows = instances.rows(np.array(indices, np.int64))
    ids = rows.ragged("token_ids")
    lists = [ids.values[a:b].tolist() for a, b in zip(ids.offsets, ids.offsets[1:], strict=False)]
    assert rows.indices.tolist() == list(indices)
    return list(zip(lists, rows.column("label").tolist(), strict=True))


def test_rows_come_back_by_index(tmp_path):
    instances = InstanceSet.open(write_set(tmp_path / "s", ROWS))
    flat = [row for shard in ROWS for row in shard]
    assert (instances.num_rows, instances.num_tokens, instances.kind) == (4, 6, "labelled")
    assert instances.lengths.tolist() == [3, 0, 1, 2] and instances.lengths.dtype == np.int32
    assert read(instances, [3, 0, 0, 2]) == [flat[3], flat[0], flat[0], flat[2]]
    assert read(instances, []) == []
    assert instances.held_out is None


def test_held_out_rows_are_a_set_of_their_own(tmp_path):
    instances = InstanceSet.open(write_set(tmp_path / "s", ROWS, held_out=([], [([5], 9)])))
    assert instances.held_out is not None
    assert instances.held_out.num_rows == 1
    assert read(instances.held_out, [0]) == [([5], 9)]
    assert instances.num_rows == 4


@given(
    st.lists(
        st.lists(st.tuples(st.lists(st.integers(0, 299), max_size=5), st.just(3)), max_size=9),
        min_size=1,
        max_size=4,
    ).filter(any),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_rows_in_any_order(tmp_path_factory, shards, data):
    folder = write_set(tmp_path_factory.mktemp("s") / "s", shards)
    flat = [row for shard in shards for row in shard]
    wanted = data.draw(st.lists(st.integers(0, len(flat) - 1), max_size=12))
    assert read(InstanceSet.open(folder), wanted) == [flat[index] for index in wanted]


def test_many_batches_in_a_file_are_one_sequence(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.text.shards.BATCH_TOKENS", 4)
    rows = [([number] * (number % 4), number) for number in range(40)]
    instances = InstanceSet.open(write_set(tmp_path / "s", [rows[:25], rows[25:]]))
    order = list(range(39, -1, -1))
    assert read(instances, order) == [rows[index] for index in order]


@pytest.mark.parametrize(("size", "kind"), [(256, "uint8"), (257, "uint16"), (65537, "uint32")])
def test_ids_take_the_narrowest_type(tmp_path, size, kind):
    write_set(tmp_path / "s", [[([size - 1], 0)]], vocab_size=size)
    instances = InstanceSet.open(tmp_path / "s")
    ids = instances.rows(np.array([0])).ragged("token_ids").values
    assert ids.dtype == kind and ids.tolist() == [size - 1]


def test_equal_rows_make_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_set(tmp_path / name, ROWS)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def refuse(folder, kind):
    with pytest.raises(PipelineError) as caught:
        InstanceSet.open(folder)
    assert type(caught.value) is kind, caught.value
    return str(caught.value)


@pytest.fixture
def good(tmp_path):
    return write_set(tmp_path / "s", ROWS)


def edit(folder, change):
    """Change the manifest in a way that keeps its own digest right."""
    values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(values)
    (folder / "manifest.json").unlink()
    write_json(folder / "manifest.json", values)


def test_what_is_missing(good):
    (good / "shard_00001.arrow").unlink()
    assert "shard_00001.arrow: no such file; the manifest lists it" in refuse(good, MissingError)
    (good / "manifest.json").unlink()
    assert "`instances --join` writes it" in refuse(good, MissingError)


def test_a_stranger_is_ignored_with_a_warning(good, capsys):
    (good / "shard_00009.arrow").write_bytes(b"junk")
    assert InstanceSet.open(good).num_rows == 4
    path = good / "shard_00009.arrow"
    assert capsys.readouterr().err == f"warning: {path}: not in the manifest, ignored\n"


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:100]],
)
def test_another_size(good, damage):
    path = good / "shard_00000.arrow"
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(damage(data))
    found = len(damage(data))
    assert f"{found} bytes, the manifest says {len(data)}" in refuse(good, ArtifactError)


def test_every_flipped_bit_is_found(good):
    path = good / "shard_00000.arrow"
    data = path.read_bytes()
    path.chmod(0o644)
    generator = np.random.default_rng(7)
    for bit in generator.integers(0, len(data) * 8, 200).tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert "damaged, build it again" in refuse(good, ArtifactError)
    path.write_bytes(b"\0" * len(data))
    assert "damaged" in refuse(good, ArtifactError)


def test_swapped_shards_are_named(tmp_path):
    folder = write_set(tmp_path / "s", [[([1], 0)], [([2], 0)]])
    first, second = folder / "shard_00000.arrow", folder / "shard_00001.arrow"
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)
    message = refuse(folder, ArtifactError)
    assert "shard_00000.arrow" in message and "holds what shard_00001.arrow should" in message


def test_a_manifest_that_was_edited_or_torn(good):
    path = good / "manifest.json"
    text = path.read_text(encoding="utf-8")
    path.chmod(0o644)
    path.write_text(text.replace('"rows": 4', '"rows": 5'), encoding="utf-8")
    assert "edited or damaged" in refuse(good, ArtifactError)
    path.write_text(text[:200], encoding="utf-8")
    assert "not JSON" in refuse(good, ArtifactError)


def test_a_manifest_of_a_newer_version_or_another_stage(good):
    edit(good, lambda values: values["stamp"].update(format=99))
    assert "format 99, made by a newer version" in refuse(good, ConfigError)
    edit(good, lambda values: values["stamp"].update(format=1, stage="vocab"))
    assert "made by stage 'vocab'; expected one of 'instances'" in refuse(good, ConfigError)


@pytest.mark.parametrize("name", ["../shard_00000.arrow", "/etc/passwd", "a\\b", "..", "x/y"])
def test_a_manifest_that_leaves_its_folder(good, name):
    edit(good, lambda values: values["shards"][0].update(file=name))
    assert "is not a plain file name" in refuse(good, UnsafeError)


def test_a_manifest_with_entries_twice_or_out_of_order(good):
    edit(good, lambda values: values["shards"].insert(0, values["shards"][0]))
    assert "shard 'shard_00000.arrow' stands where shard_00001.arrow belongs" in refuse(
        good, DataError
    )


def test_a_manifest_with_wrong_totals(good):
    edit(good, lambda values: values.update(tokens=7))
    assert "tokens 7, shards sum to 6" in refuse(good, ArtifactError)
    edit(good, lambda values: values.update(tokens=6) or values["shards"][1].update(rows=2))
    edit(good, lambda values: values.update(rows=5))
    assert "1 rows, the manifest says 2" in refuse(good, ArtifactError)


def test_a_manifest_with_other_fields(good):
    edit(good, lambda values: values.update(extra=1) or values.pop("kind"))
    with pytest.raises(DataError) as caught:
        InstanceSet.open(good)
    assert len(caught.value.problems) == 2
    edit(good, lambda values: (values.pop("extra"), values.update(kind="labelled", columns={})))
    assert "columns: no token_ids" in refuse(good, DataError)


def forge(folder, data, rows=None):
    """Put another file in place of shard 0 with a manifest that vouches for it."""
    path = folder / "shard_00000.arrow"
    path.unlink()
    path.write_bytes(data)

    def change(values):
        values["shards"][0].update(bytes=len(data), digest=digest_file(path))
        if rows is not None:
            values["shards"][0].update(rows=rows[0], tokens=rows[1])
            values.update(rows=rows[0] + 1, tokens=rows[1] + 2)

    edit(folder, change)


def arrow_file(schema, columns, options=None):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=options) as file:
        file.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return sink.getvalue().to_pybytes()


SCHEMA = arrow_schema(COLUMNS, 300, STAMP)


def columns(offsets=(0, 2), values=(1, 2), labels=(0,)):
    child = pa.array(values, pa.uint16())
    lists = pa.Array.from_buffers(
        SCHEMA.field(0).type, len(offsets) - 1,
        [None, pa.py_buffer(np.array(offsets, np.int32))], children=[child],
    )  # fmt: skip
    return [lists, pa.array(labels, pa.uint32())]


def test_a_forged_shard_with_another_schema(good):
    for schema in (
        pa.schema([SCHEMA.field(0), pa.field("label", pa.int32(), False)]),
        pa.schema([SCHEMA.field(0), pa.field("label", pa.uint32())]),
        pa.schema([SCHEMA.field(0), pa.field("labels", pa.uint32(), False)]),
        pa.schema([SCHEMA.field(0), pa.field("label", pa.dictionary(pa.int8(), pa.utf8()), False)]),
    ):
        kind = schema.field(1).type
        label = pa.array(["a"]).dictionary_encode().cast(kind) if "dict" in str(kind) else [0]
        forge(good, arrow_file(schema, [columns()[0], pa.array(label, kind)]), (1, 2))
        assert "schema is " in refuse(good, DataError)


def test_a_forged_shard_with_wider_ids(good):
    wide = arrow_schema(COLUMNS, 70_000, STAMP)
    forge(good, arrow_file(wide, [pa.array([[1]], wide.field(0).type), columns()[1]]), (1, 1))
    assert "ids of type uint32, a vocabulary of 300 takes uint16" in refuse(good, ConfigError)


def test_a_forged_shard_made_with_other_settings(good):
    other = SCHEMA.with_metadata({"stamp": '{"settings":{"kind":"lines"}}'})
    forge(good, arrow_file(other, columns()), (1, 2))
    assert "made with other settings" in refuse(good, ConfigError)


def test_a_forged_compressed_shard(good):
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    lists = columns(offsets=(0, 4000), values=[7] * 4000)
    forge(good, arrow_file(SCHEMA, lists, options), (1, 4000))
    assert "is compressed or byte-swapped, not mapped" in refuse(good, DataError)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ((0, 3, 2), "row 1: negative length"),
        ((1, 2, 2), "offsets do not span its 2 values"),
        ((0, 1, 1), "offsets do not span its 2 values"),
        ((0, 1, 9), "offsets do not span its 2 values"),
    ],
)
def test_a_forged_shard_with_wrong_offsets(good, offsets, message):
    sound = np.array([0, 1, 2], np.int32).tobytes()
    data = arrow_file(SCHEMA, columns((0, 1, 2), labels=(0, 1)))
    assert data.count(sound) == 1
    forge(good, data.replace(sound, np.array(offsets, np.int32).tobytes()), (2, 2))
    assert message in refuse(good, DataError)


def test_a_forged_shard_with_nulls(good):
    free = pa.schema([SCHEMA.field(0), pa.field("label", pa.uint32())])
    batch = arrow_file(free, [columns()[0], pa.array([None], pa.uint32())])
    forge(good, batch, (1, 2))
    assert "schema is " in refuse(good, DataError)


def test_an_id_outside_the_vocabulary(tmp_path):
    folder = write_set(tmp_path / "s", [[([1], 0), ([2, 299], 1)]])
    edit(folder, lambda values: values.update(vocab_size=299))
    instances = InstanceSet.open(folder)
    assert read(instances, [0]) == [([1], 0)]
    with pytest.raises(DataError, match="row 1, column token_ids: id 299 is not in a"):
        instances.rows(np.array([0, 1]))


def test_other_formats_under_the_name(good):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns(), schema=SCHEMA))
    forge(good, sink.getvalue().to_pybytes())
    assert "an Arrow stream, not an Arrow file" in refuse(good, DataError)
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"a": [1]}), sink)
    forge(good, sink.getvalue().to_pybytes())
    assert "a Parquet file, not an Arrow file" in refuse(good, DataError)
    forge(good, b"")
    assert "not a readable Arrow file" in refuse(good, DataError)


def test_a_shard_replaced_while_mapped_stays_readable(good):
    instances = InstanceSet.open(good)
    (good / "new").write_bytes(b"other")
    (good / "new").rename(good / "shard_00000.arrow")
    assert read(instances, [0]) == [([1, 2, 3], 0)]
    refuse(good, ArtifactError)
