"""Part F of the bad-input matrix: shards and manifests, as the stage pretrain meets them.

Each refusal is one line; no checkpoint appears, and the set is left as it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.artifacts import digest_tensors
from pipeline.text.shards import arrow_schema
from tests.faults.kit import ROOT, SPEC
from tests.pipeline.stages.data_command import contents
from tests.pipeline.stages.training_command import (
    OTHER,
    ROWS,
    SHARD,
    TOKENS,
    TrainingInputs,
    changed,
    forge,
    make_inputs,
    replace,
    train,
)
from tests.pipeline.text.test_shards import arrow_file, edit

COLUMNS = {"token_ids": "ids"}
VOCAB_SIZE = 5 + 17
ONE_SEGMENT = changed(total_steps=4)
EVEN = np.arange(0, ROWS * TOKENS + 1, TOKENS)
IDS = np.full(ROWS * TOKENS, 7)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainingInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def folder(inputs: TrainingInputs, tmp_path: Path) -> Path:
    """A copy of the set that a test may damage."""
    return Path(shutil.copytree(inputs.instances, tmp_path / "set"))


def stamp_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["stamp"]


def change_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return the damage that gives the first shard other bytes."""
    return lambda folder: replace(folder / SHARD, change((folder / SHARD).read_bytes()))


def flip(share: float) -> Callable[[Path], None]:
    """Return the damage that flips a bit at a share of the first shard's length."""

    def change(data: bytes) -> bytes:
        place = int(share * len(data))
        return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]

    return change_bytes(change)


def hole(data: bytes) -> bytes:
    start, size = len(data) // 4, min(1 << 16, len(data) // 2)
    return data[:start] + b"\0" * size + data[start + size :]


def swap(folder: Path) -> None:
    one, two = ((folder / name).read_bytes() for name in (SHARD, OTHER))
    assert len(one) == len(two) and one != two
    replace(folder / SHARD, two)
    replace(folder / OTHER, one)


def forge_rows(
    values: Any = IDS, offsets: Any = EVEN, options: pa.ipc.IpcWriteOptions | None = None
) -> Callable[[Path], None]:
    """Return the damage: a shard of these rows, sound or not, which the manifest vouches for."""

    def damage(folder: Path) -> None:
        schema = arrow_schema(COLUMNS, VOCAB_SIZE, stamp_of(folder))
        kind = schema.field(0).type
        sound = np.linspace(0, len(values), ROWS + 1).astype(np.int32)
        child = pa.array(values, kind.value_type)
        buffers = [None, pa.py_buffer(sound)]
        column = pa.Array.from_buffers(kind, ROWS, buffers, children=[child])
        data = arrow_file(schema, [column], options)
        wrong = np.array(offsets, np.int32).tobytes()
        forge(folder, data.replace(sound.tobytes(), wrong), ROWS, len(values))

    return damage


def forge_schema(change: Callable[[pa.Schema], pa.Schema], column: pa.Array) -> Any:
    """Return the damage: a shard of another schema."""

    def damage(folder: Path) -> None:
        schema = change(arrow_schema(COLUMNS, VOCAB_SIZE, stamp_of(folder)))
        forge(folder, arrow_file(schema, [column.cast(schema.field(0).type)]), len(column), 1)

    return damage


def forge_format(write: Callable[[pa.BufferOutputStream, pa.Table], object]) -> Any:
    """Return the damage: another format under the shard's name."""

    def damage(folder: Path) -> None:
        sink = pa.BufferOutputStream()
        write(sink, pa.table({"token_ids": [[1]]}))
        forge(folder, sink.getvalue().to_pybytes())

    return damage


def write_stream(sink: pa.BufferOutputStream, table: pa.Table) -> None:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def edit_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder, change)


def tear_manifest(folder: Path) -> None:
    replace(folder / "manifest.json", (folder / "manifest.json").read_bytes()[:200])


def one_row_less(values: dict[str, Any]) -> None:
    for part in (values, values["shards"][0]):
        part["rows"] -= 1
        part["tokens"] -= TOKENS


# The damage, exit code, and the line, a regular expression; S the first shard, M the manifest.
CASES: list[Any] = [
    ("F1", lambda folder: (folder / SHARD).unlink(), 66,
     "S: no such file; the manifest lists it, build it again"),
    ("F1 manifest", lambda folder: (folder / "manifest.json").unlink(), 66,
     "M: no such file; `instances --join` writes it"),
    ("F2 empty", change_bytes(lambda data: b""), 76, r"S: 0 bytes, the manifest says \d+"),
    ("F2 cut", change_bytes(lambda data: data[:-1]), 76, r"S: \d+ bytes, the manifest says \d+"),
    ("F2 longer", change_bytes(lambda data: data + b"x"), 76,
     r"S: \d+ bytes, the manifest says \d+"),
    ("F2 zeros", change_bytes(lambda data: bytes(len(data))), 76, "DAMAGED"),
    ("F3 schema", flip(0.1), 76, "DAMAGED"),
    ("F3 offsets", flip(0.5), 76, "DAMAGED"),
    ("F3 payload", flip(0.7), 76, "DAMAGED"),
    ("F3 footer", flip(0.98), 76, "DAMAGED"),
    ("F4", change_bytes(hole), 76, "DAMAGED"),
    ("F5", swap, 76, r"S: digest \w+\.\.\., the manifest says \w+\.\.\.; it holds what "
     r"shard_00001\.arrow should"),
    ("F6 type", forge_schema(lambda schema: pa.schema([pa.field("token_ids", pa.int32())]),
                             pa.array([1])), 65, "S: schema is token_ids: int32.*; expected .*"),
    ("F6 name", forge_schema(lambda schema: pa.schema([schema.field(0).with_name("ids")]),
                             pa.array([[1]])), 65, "S: schema is ids: list.*; expected .*"),
    ("F6 wider", forge_schema(lambda schema: arrow_schema(COLUMNS, 70_000, {}), pa.array([[1]])),
     78, "S: ids of type uint32, a vocabulary of 22 takes uint8; build the instances with this "
     "vocabulary"),
    ("F6 compressed", forge_rows([7] * 6400, options=pa.ipc.IpcWriteOptions(compression="zstd")),
     65, "S: column token_ids is compressed or byte-swapped, not mapped"),
    ("F7 length", forge_rows(offsets=[0, 2, 1, *EVEN[3:]]), 65,
     "S: column token_ids, row 1: negative length; build it again"),
    ("F7 offsets", forge_rows(offsets=[*EVEN[:-1], 999]), 65,
     "S: column token_ids: offsets do not span its 320 values"),
    ("F7 id", forge_rows([*IDS[:-1], 99]), 65,
     "D: row 31, column token_ids: id 99 is not in a vocabulary of 22; build the instances again"),
    ("F8", edit_manifest(one_row_less), 76,
     "S: 32 rows, the manifest says 31; build it again"),
    ("F9 torn", tear_manifest, 76, r"M:\d+:\d+: not JSON: .*"),
    ("F9 version", edit_manifest(lambda values: values["stamp"].update(format=99)), 78,
     "M: format 99, made by a newer version; this one reads up to 1"),
    ("F9 leaves", edit_manifest(lambda values: values["shards"][0].update(file="../x.arrow")), 77,
     r"M: shard '\.\./x\.arrow' is not a plain file name"),
    ("F9 twice", edit_manifest(lambda values: values["shards"].insert(0, values["shards"][0])), 65,
     "M: shard 'shard_00000.arrow' stands where shard_00001.arrow belongs"),
    ("F9 total", edit_manifest(lambda values: values.update(rows=63)), 76,
     "M: rows 63, shards sum to 64"),
    ("F14 stream", forge_format(write_stream), 65, "S: an Arrow stream, not an Arrow file: .*"),
    ("F14 parquet", forge_format(lambda sink, table: pyarrow.parquet.write_table(table, sink)), 65,
     "S: a Parquet file, not an Arrow file: .*"),
]  # fmt: skip
DAMAGED = r"S: digest \w+\.\.\., the manifest says \w+\.\.\.; damaged, build it again"


@pytest.mark.parametrize(
    ("damage", "code", "line"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_damaged_sets(
    inputs: TrainingInputs,
    folder: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    code: int,
    line: str,
) -> None:
    damage(folder)
    before = contents(folder)
    done = train(inputs, tmp_path / "run", spec=ONE_SEGMENT, instances=folder)
    assert (done.code, len(done.lines)) == (code, 1), done.lines
    places = {"S": f"{folder}/{SHARD}", "M": f"{folder}/manifest.json", "D": f"{folder}"}
    expected = DAMAGED if line == "DAMAGED" else line
    pattern = re.escape(places[expected[0]]) + expected[1:]
    assert re.fullmatch(f"error: {pattern}", done.lines[0]), done.lines[0]
    assert contents(folder) == before
    assert not list((tmp_path / "run").glob("*"))


def test_f1_a_stranger_is_ignored_with_a_warning(
    inputs: TrainingInputs, folder: Path, tmp_path: Path
) -> None:
    (folder / "shard_00009.arrow").write_bytes(b"junk")
    done = train(inputs, tmp_path / "run", spec=ONE_SEGMENT, instances=folder)
    warning = f"warning: {folder}/shard_00009.arrow: not in the manifest, ignored"
    assert (done.code, done.lines) == (0, [warning])


SHORT = {**SPEC["architecture"], "embedding": {"name": "bert", "max_positions": 9}}
F10: list[tuple[dict[str, Any], str]] = [
    (
        {"targets": [{"name": "nsp", "pooling": "last"}]},
        "D: instances of kind lines; target nsp needs sentences",
    ),
    (
        {"architecture": SHORT},
        "embedding.max_positions: 9 is less than the 10 tokens of a row; use a shorter seq_length "
        "or more positions",
    ),
]


@pytest.mark.parametrize(("changes", "line"), F10)
def test_f10_sets_for_something_else(
    inputs: TrainingInputs, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    done = train(inputs, tmp_path / "run", spec={**ONE_SEGMENT, **changes})
    expected = f"error: {line}".replace("D:", f"{inputs.instances}:")
    assert (done.code, done.lines) == (78, [expected])
    assert not list((tmp_path / "run").glob("*"))


CUTTING = """
import os, sys
from pipeline.__main__ import main
from pipeline.training.loop import Learner
update = Learner.update
def cutting(self, step, *rest):
    if self.ranks.rank == 1 and step == 2:
        os.truncate(os.environ["CUT"], 0)
    return update(self, step, *rest)
Learner.update = cutting
sys.exit(main(sys.argv[1:]))
"""


def test_f11_a_shard_cut_short_while_in_use(
    inputs: TrainingInputs, folder: Path, tmp_path: Path
) -> None:
    for name in (SHARD, OTHER):
        (folder / name).chmod(0o644)
    arguments = ["pretrain", "--spec", json.dumps(SPEC), "--instances", folder]
    arguments += ["--vocab", inputs.vocab, "--out", tmp_path / "run", "--set", "ranks=2"]
    done = subprocess.run(
        [sys.executable, "-c", CUTTING, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "CUT": str(folder / SHARD)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 76, done.stderr
    told = r"error: rank [01] was killed by SIGBUS: a mapped file, most likely a shard, was cut .*"
    assert len(lines) == 1 and re.fullmatch(told, lines[0])
    assert not list((tmp_path / "run").glob("*"))


def test_f12_a_shard_replaced_while_in_use(
    inputs: TrainingInputs, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on with what it mapped; the next start finds the other bytes."""
    from pipeline.training.loop import Learner

    assert train(inputs, tmp_path / "undisturbed", spec=ONE_SEGMENT).code == 0
    update = Learner.update

    def replacing(self: Learner, step: int, *rest: Any) -> Any:
        if step == 1:
            (tmp_path / "new").write_bytes(b"junk")
            (tmp_path / "new").replace(folder / SHARD)
        return update(self, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "update", replacing)
        done = train(inputs, tmp_path / "run", spec=ONE_SEGMENT, instances=folder)
        assert (done.code, done.lines) == (0, [])
    name = "step_00000004.safetensors"
    one, two = (digest_tensors(tmp_path / run / name) for run in ("undisturbed", "run"))
    assert one == two
    assert train(inputs, tmp_path / "run", spec=ONE_SEGMENT, instances=folder).code == 76
