"""Features: rows align with lines, values are the model's, Arrow and npy say the same."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.errors import ConfigError, DataError, UsageError
from pipeline.probes import features
from pipeline.probes.features import FeaturesProbe
from pipeline.training.pretrained import open_pretrained
from tests.pipeline.probes.tiny import CHARACTERS, CPU, LSTM, TRANSFORMER, request, write_model

LINES = [CHARACTERS[:7], "", CHARACTERS[5:9], "  ", "我", CHARACTERS[:30], "龘龘"]
WITHOUT_TOKENS = [1, 3]
ENCODERS = {
    "transformer": (TRANSFORMER, {"name": "bert", "max_positions": 32}),
    "pre-norm": ({**TRANSFORMER, "norm_position": "pre"}, {"name": "bert", "max_positions": 32}),
    "lstm": (LSTM, {"name": "word"}),
    "bidirectional": ({**LSTM, "name": "gru", "bidirectional": True}, {"name": "word"}),
}


class Kept:
    """An output that keeps bytes; path: what the name of the file would be."""

    def __init__(self, path):
        self.path, self.file = path, io.BytesIO()

    def open_binary(self):
        return self.file


def write(folder, encoder="transformer", special_tokens=False, **options):
    network, embedding = ENCODERS[encoder]
    model = {"encoder": network, "embedding": embedding, "special_tokens": special_tokens}
    write_model(folder, scale=3.0, **model)  # larger weights would magnify the last bits
    source = folder / "in.txt"
    source.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return FeaturesProbe(FeaturesProbe.Config(**options), request(folder, source))


def read(probe, suffix):
    output = Kept(probe.request.source.with_name(f"out{suffix}"))
    books = probe.run(output)
    output.file.seek(0)
    if suffix == ".npy":
        return np.load(output.file, allow_pickle=False), books
    return pa.ipc.open_file(output.file).read_all(), books


def expected(folder, text, special_tokens=False):
    """Return the ids of a text and its hidden states at each layer, by plain calls alone."""
    opened = open_pretrained(folder / "model.safetensors", folder / "vocab.txt", CPU)
    ids = opened.frame(opened.tokenizer.encode([text]), special_tokens).values.astype(np.int64)
    row = torch.from_numpy(ids)[None]
    segments = torch.ones_like(row)
    with torch.no_grad():
        states = [opened.model.embedding(row, segments)]
        encoder = opened.model.encoder
        if hasattr(encoder, "layers"):
            for layer in encoder.layers:
                states.append(layer(states[-1], None, False)[0])
            states[-1] = encoder.norm(states[-1])
        else:
            half = encoder.rnn.hidden_size
            kind = torch.nn.LSTM if encoder.rnn.cell == "lstm" else torch.nn.GRU
            both = len(encoder.rnn.suffixes) == 2
            for number in range(encoder.rnn.num_layers):
                own = kind(states[-1].shape[-1], half, batch_first=True, bidirectional=both)
                for name, weight in own.named_parameters():
                    theirs = name.replace("_l0", f"_l{number}")
                    weight.copy_(encoder.rnn.get_parameter(theirs))
                states.append(own(states[-1])[0])
    return ids, [state[0].numpy() for state in states]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("special_tokens", [False, True])
def test_every_layer_of_every_token_is_the_models(tmp_path, encoder, special_tokens):
    probe = write(tmp_path, encoder, special_tokens, layer="all", pooling="none")
    table, books = read(probe, ".arrow")
    assert table["line"].to_pylist() == list(range(1, len(LINES) + 1))
    assert books == {"lines": len(LINES), "without tokens": 2, "cut": 0}
    tokens = probe.opened.vocabulary.tokens
    for row, text in enumerate(LINES):
        if row in WITHOUT_TOKENS:
            assert table["tokens"][row].as_py() == []
            assert all(table[f"layer_{n}"][row].as_py() is None for n in range(3))
            continue
        ids, states = expected(tmp_path, text, special_tokens)
        assert table["tokens"][row].as_py() == [tokens[i] for i in ids]
        for layer, state in enumerate(states):
            found = np.array(table[f"layer_{layer}"][row].as_py(), np.float32)
            np.testing.assert_allclose(found, state, atol=2e-5)


@pytest.mark.parametrize(
    ("pooling", "formula"),
    [
        ("first", lambda state: state[0]),
        ("last", lambda state: state[-1]),
        ("mean", lambda state: state.mean(0)),
        ("max", lambda state: state.max(0)),
    ],
)
@pytest.mark.parametrize("layer", [0, 1, "last"])
def test_pooled_rows(tmp_path, pooling, formula, layer):
    probe = write(tmp_path, pooling=pooling, layer=layer)
    table, _ = read(probe, ".arrow")
    array, _ = read(probe, ".npy")
    assert array.shape == (len(LINES), 16) and array.dtype == np.float32
    for row, text in enumerate(LINES):
        if row in WITHOUT_TOKENS:
            assert table["features"][row].as_py() is None and np.isnan(array[row]).all()
            continue
        state = expected(tmp_path, text)[1][2 if layer == "last" else layer]
        np.testing.assert_allclose(array[row], formula(state), atol=2e-5)
        assert table["features"][row].as_py() == array[row].tolist()


@pytest.mark.parametrize("layer", ["last", "all"])
def test_npy_of_tokens_is_nan_where_there_is_none(tmp_path, layer):
    probe = write(tmp_path, pooling="none", layer=layer)
    array, _ = read(probe, ".npy")
    table, _ = read(probe, ".arrow")
    assert array.shape == (len(LINES), *([3] if layer == "all" else []), 32, 16)
    by_layer = array if layer == "all" else array[:, None]
    names = ["layer_0", "layer_1", "layer_2"] if layer == "all" else ["features"]
    for row in range(len(LINES)):
        for number, name in enumerate(names):
            vectors = table[name][row].as_py() or []
            assert by_layer[row, number, : len(vectors)].tolist() == vectors
            assert np.isnan(by_layer[row, number, len(vectors) :]).all()


def test_windows_leave_no_trace(tmp_path, monkeypatch):
    probe = write(tmp_path, layer="all", pooling="none")
    whole, _ = read(probe, ".npy")
    monkeypatch.setattr(features, "WINDOW_NUMBERS", 2 * 3 * 16 * 32)
    assert probe.plan.lines_at_once() == 2
    parts, books = read(probe, ".npy")
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert books["lines"] == len(LINES)
    assert [len(batch) for batch in read(probe, ".arrow")[0].to_batches()] == [2, 2, 2, 1]


def test_an_empty_input_gives_an_empty_file(tmp_path):
    probe = write(tmp_path)
    probe.request.source.write_bytes(b"")
    assert read(probe, ".npy")[0].shape == (0, 16)
    assert len(read(probe, ".arrow")[0]) == 0


def test_long_texts_are_cut_and_counted_or_refused(tmp_path):
    probe = write(tmp_path, special_tokens=True, seq_length=6)
    table, books = read(probe, ".arrow")
    assert books["cut"] == 2 and table["cut"].to_pylist() == [True, *[False] * 4, True, False]
    assert len(table["tokens"][0]) == 6 and table["tokens"][0].as_py()[-1] == "[SEP]"
    strict = write(tmp_path, special_tokens=True, seq_length=6, long_texts="fail")
    with pytest.raises(DataError, match=r"in\.txt:1: 7 tokens; the model has positions for 4"):
        read(strict, ".arrow")


def test_the_stamp_names_what_was_computed(tmp_path):
    table, _ = read(write(tmp_path), ".arrow")
    stamp = table.schema.metadata[b"stamp"].decode()
    assert '"probe":"features"' in stamp and '"pooling":"mean"' in stamp
    assert str(tmp_path) not in stamp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, r"^layer: 3; the model has layers 0 \(embedding\) to 2$"),
        ({"seq_length": 33}, "^seq_length: 33, but the model has positions for 32$"),
    ],
)
def test_options_that_do_not_fit_the_model(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, **options)


def test_names_of_other_formats_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"out\.txt: end the name in \.arrow or \.npy$"):
        write(tmp_path).run(Kept(tmp_path / "out.txt"))


def test_layers_of_two_sizes_need_arrow(tmp_path):
    write_model(tmp_path, encoder=LSTM, embedding={"name": "word", "size": 8})
    source = tmp_path / "in.txt"
    source.write_text("我\n", encoding="utf-8")
    probe = FeaturesProbe(FeaturesProbe.Config(layer="all"), request(tmp_path, source))
    table, _ = read(probe, ".arrow")
    assert [len(table[f"layer_{n}"][0]) for n in range(3)] == [8, 16, 16]
    with pytest.raises(ConfigError, match="the embedding has size 8 and the layers 16"):
        read(probe, ".npy")
