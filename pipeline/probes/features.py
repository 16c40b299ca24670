"""Features: hidden states of texts, as numbers for other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import Field
from torch import Tensor

from pipeline.errors import ConfigError, UsageError
from pipeline.layers import Pooling, pool
from pipeline.probes import (
    WINDOW_LINES,
    Layer,
    Line,
    Output,
    Probe,
    Request,
    check_lengths,
    find_layer,
)
from pipeline.registry import PROBES, ComponentConfig
from pipeline.strict import canonical_json
from pipeline.text.inputs import keep_first
from pipeline.text.rows import Ragged

# Numbers of hidden states in memory at once; more lines are read when these are written.
WINDOW_NUMBERS = 16 << 20
DEFAULT_SEQ_LENGTH = 512


@dataclass(frozen=True)
class Features:
    """Features of some lines in their order.

    values: for each layer a list with, for each line, (D,) or, for each token, (T, D) float32;
    None where the line has no token. tokens: the tokens of each line. cut: which lines were cut.
    """

    lines: Sequence[Line]
    values: list[list[np.ndarray | None]]
    tokens: list[list[str]]
    cut: np.ndarray


@dataclass(frozen=True)
class _Plan:
    """What is computed. layers: their numbers; names, sizes: of their columns."""

    layers: list[int]
    names: list[str]
    sizes: list[int]
    per_token: bool
    seq_length: int

    def shape(self) -> tuple[int, ...]:
        """Return the shape of a line's features in one array. Raises ConfigError."""
        if len(set(self.sizes)) > 1:
            raise ConfigError(
                f"layer: all: the embedding has size {self.sizes[0]} and the layers "
                f"{self.sizes[-1]}, one array cannot hold both; use Arrow"
            )
        layers = [len(self.layers)] if len(self.layers) > 1 else []
        return (*layers, *([self.seq_length] if self.per_token else []), self.sizes[0])

    def lines_at_once(self) -> int:
        """Return how many lines' features are held in memory."""
        numbers = sum(self.sizes) * (self.seq_length if self.per_token else 1)
        return max(1, min(WINDOW_LINES, WINDOW_NUMBERS // numbers))


class FeatureWriter(Protocol):
    """Writes features window by window."""

    def write(self, features: Features) -> None:
        """Append the features of some lines."""

    def close(self) -> None:
        """Complete the file."""


class ArrowWriter:
    """Arrow: columns line, tokens, cut and, for each layer, `features` or `layer_0`, `layer_1` ...

    A feature is a list of D float32, or of T of them; null where the line has no token.
    """

    def __init__(self, file: BinaryIO, plan: "_Plan", stamp: Mapping[str, Any], stream: bool):
        kinds = [pa.list_(pa.float32(), size) for size in plan.sizes]
        self.kinds = [pa.list_(kind) for kind in kinds] if plan.per_token else kinds
        fields = [
            pa.field("line", pa.int64()),
            pa.field("tokens", pa.list_(pa.string())),
            pa.field("cut", pa.bool_()),
            *(pa.field(name, kind) for name, kind in zip(plan.names, self.kinds, strict=True)),
        ]
        self.schema = pa.schema(fields, metadata={"stamp": canonical_json(stamp)})
        self.writer = (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, self.schema)

    def write(self, features: Features) -> None:
        """Append a record batch."""
        arrays = [
            pa.array([line.number for line in features.lines], pa.int64()),
            pa.array(features.tokens, pa.list_(pa.string())),
            pa.array(features.cut, pa.bool_()),
            *map(_arrow_array, features.values, self.kinds),
        ]
        self.writer.write_batch(pa.record_batch(arrays, schema=self.schema))

    def close(self) -> None:
        """Write the footer."""
        self.writer.close()


def _arrow_array(values: list[np.ndarray | None], kind: pa.DataType) -> pa.Array:
    """Return an array of vectors, or of lists of vectors."""
    missing = np.array([value is None for value in values])
    per_token = pa.types.is_list(kind)
    vectors = kind.value_type if per_token else kind
    width = vectors.list_size
    empty = np.zeros((0 if per_token else 1, width), np.float32)
    filled = [empty if value is None else value.reshape(-1, width) for value in values]
    flat = pa.array(np.concatenate(filled).reshape(-1))
    if not per_token:
        return pa.FixedSizeListArray.from_arrays(flat, type=vectors, mask=pa.array(missing))
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in filled])])
    inner = pa.FixedSizeListArray.from_arrays(flat, type=vectors)
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), inner, type=kind, mask=pa.array(missing)
    )


class NumpyWriter:
    """npy: one float32 array (lines, [layers,] [seq_length,] D); what is not there is NaN."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...]):
        self.file, self.shape, self.rows = file, shape, 0
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room in the header for the first axis to grow.
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def write(self, features: Features) -> None:
        """Append rows."""
        block = np.full((len(features.lines), *self.shape), np.nan, "<f4")
        by_layer = block if len(features.values) > 1 else block[:, None]
        for layer, values in enumerate(features.values):
            for row, value in enumerate(values):
                if value is not None and value.ndim == 2:
                    by_layer[row, layer, : len(value)] = value
                elif value is not None:
                    by_layer[row, layer] = value
        self.rows += len(block)
        self.file.write(block.tobytes())

    def close(self) -> None:
        """Write the number of rows into the header."""
        self.file.seek(0)
        self._write_header()


@PROBES.register("features")
class FeaturesProbe(Probe):
    """Hidden states of each line, pooled or for each token, of one layer or of all.

    A row for each line, in order: an Arrow file (an Arrow stream on standard output), or a npy
    array if --out ends in .npy. A line without tokens has a row too: null in Arrow, NaN in npy.
    Source: the 2020 reference's extract_feature. Differs: rows align with lines; no padding in
    Arrow, NaN for it in npy; [SEP] behind the text as in training; bounded memory.
    """

    reads = "texts, one a line"

    class Config(ComponentConfig):
        """Options of the features."""

        layer: Layer | Literal["all"] = "last"
        """0 is the embedding, 1 the first layer; last, or all."""
        pooling: Pooling | Literal["none"] = "mean"
        """One vector for a line (first, mean, max or last of its tokens, [CLS] and [SEP]
        included), or none: one for each token."""
        seq_length: int | None = Field(None, ge=3)
        """Longest row in tokens, special ones included; absent: as many as the model has positions
        for, 512 where that is without limit."""
        long_texts: Literal["cut", "fail"] = "cut"
        """What a longer text does: lose its end and be counted, or stop the probe."""
        special_tokens: bool | None = None
        """Put [CLS] before and [SEP] behind each text; absent: as the model was trained."""

    config: Config

    def __init__(self, config: Config, request: Request):
        super().__init__(config, request)
        self.opened = request.open_model()
        self.special_tokens = self.opened.wants_special_tokens(config.special_tokens)
        self.plan = self._plan()

    def _plan(self) -> _Plan:
        sizes = self.opened.layer_sizes()
        layer = self.config.layer
        if layer == "all":
            chosen, names = list(range(len(sizes))), [f"layer_{n}" for n in range(len(sizes))]
        else:
            chosen, names = [find_layer(layer, len(sizes))], ["features"]
        room = self.opened.room(special_tokens=False)
        wanted = self.config.seq_length
        if wanted and room and wanted > room:
            raise ConfigError(f"seq_length: {wanted}, but the model has positions for {room}")
        width = wanted or room or DEFAULT_SEQ_LENGTH
        per_token = self.config.pooling == "none"
        return _Plan(chosen, names, [sizes[n] for n in chosen], per_token, width)

    def run(self, output: Output) -> dict[str, Any]:
        """Write the features of all lines; return the books."""
        suffix = ".arrow" if output.path is None else output.path.suffix
        if suffix not in {".arrow", ".npy"}:
            raise UsageError(f"--out {output.path}: end the name in .arrow or .npy")
        books = {"lines": 0, "without tokens": 0, "cut": 0}
        shape = self.plan.shape() if suffix == ".npy" else ()
        file = output.open_binary()
        writer: FeatureWriter
        if suffix == ".npy":
            writer = NumpyWriter(file, shape)
        else:
            writer = ArrowWriter(file, self.plan, self.stamp(), output.path is None)
        for window in self.request.iter_windows(self.plan.lines_at_once()):
            features = self.features(window)
            books["lines"] += len(window)
            books["without tokens"] += sum(value is None for value in features.values[0])
            books["cut"] += int(features.cut.sum())
            writer.write(features)
        writer.close()
        return books

    def features(self, lines: list[Line]) -> Features:
        """Return the features of some lines. Raises DataError for long ones unless they are cut."""
        encoded = self.opened.tokenizer.encode([line.text for line in lines])
        room = self.plan.seq_length - 2 * self.special_tokens
        if self.config.long_texts == "fail":
            check_lengths(encoded, lines, room, self.request.where)
        kept = np.flatnonzero(encoded.lengths)
        rows = keep_first(encoded, np.minimum(encoded.lengths, room)).take(kept)
        rows = self.opened.frame(rows, self.special_tokens)
        values: list[list[np.ndarray | None]] = [[None] * len(lines) for _ in self.plan.layers]
        for part, batch, states in self.opened.iter_states(rows, self.plan.layers):
            places = kept[part].tolist()
            lengths = batch["lengths"].tolist()
            for layer, state in enumerate(states):
                for place, length, value in zip(
                    places, lengths, self._pooled(state, batch["lengths"]), strict=True
                ):
                    values[layer][place] = value[:length] if self.plan.per_token else value
        return Features(lines, values, self._tokens(len(lines), kept, rows), encoded.lengths > room)

    def _pooled(self, state: Tensor, lengths: Tensor) -> np.ndarray:
        """Return (B, D), or (B, T, D) as it is."""
        pooling = self.config.pooling
        found = state if pooling == "none" else pool(state, lengths, pooling)
        return found.float().cpu().numpy()

    def _tokens(self, count: int, kept: np.ndarray, rows: Ragged) -> list[list[str]]:
        names = self.opened.vocabulary.tokens
        found: list[list[str]] = [[] for _ in range(count)]
        for row, place in enumerate(kept.tolist()):
            ids = rows.values[rows.offsets[row] : rows.offsets[row + 1]]
            found[place] = [names[i] for i in ids.tolist()]
        return found
