"""Vocabularies: compared by hand; adapted models say the same of what both know."""

import numpy as np
import pytest
import torch

from pipeline.model import INITIAL_DEVIATION
from pipeline.probes.vocabulary import (
    adapt_characters,
    adapt_rows,
    compare_vocabularies,
    token_tensors,
)
from pipeline.subencoders import TABLE
from pipeline.text.vocabulary import build_vocabulary, read_vocabulary
from pipeline.training.checkpoint import load_tensors
from pipeline.training.pretrained import open_pretrained
from tests.pipeline.labelled import run
from tests.pipeline.probes.tiny import (
    CAUSAL,
    CHARACTERS,
    CPU,
    LSTM,
    SPECIAL,
    TRANSFORMER,
    write_model,
)

MODELS = {
    "mlm": {"target": "mlm", "encoder": TRANSFORMER},
    "lm": {"target": "lm", "encoder": CAUSAL},
    "lstm": {"target": "lm", "encoder": LSTM, "embedding": {"name": "word"}},
    "bilm": {"target": "bilm", "encoder": {**LSTM, "name": "bilstm"}},
    "s2s": {"target": "s2s", "encoder": LSTM},
    "subencoder": {"target": "mlm", "encoder": LSTM, "subencoder": "avg"},
}


def vocabulary(*tokens):
    return build_vocabulary([*SPECIAL, *tokens])


def test_figures_by_hand():
    found = compare_vocabularies(vocabulary("a", "b", "c"), vocabulary("c", "b", "d", "e"))
    assert found == {
        "first": 8,
        "second": 9,
        "only in the first": 1,
        "only in the second": 2,
        "in both": 7,
        "in both with one id": 6,
    }


def test_rows_move_with_their_tokens():
    old, new = vocabulary("a", "b"), vocabulary("b", "new", "a")
    table = torch.arange(14.0).view(7, 2)
    adapted = adapt_rows("t", table, old, new, 7)
    assert adapted[[0, 1, 2, 3, 4, 5, 7]].tolist() == table[[0, 1, 2, 3, 4, 6, 5]].tolist()
    assert adapted[6].abs().max() <= 2 * INITIAL_DEVIATION
    bias = adapt_rows("b", torch.arange(7.0), old, new, 7)
    assert bias.tolist() == [0, 1, 2, 3, 4, 6, 0, 5]


def test_a_new_row_depends_on_seed_tensor_and_token_alone():
    old = vocabulary("a")
    table = torch.zeros(6, 64)
    many = vocabulary("x", "a", "y", *(f"z{n}" for n in range(300)))
    rows = adapt_rows("t", table, old, many, 7)
    alone = adapt_rows("t", table, old, vocabulary("y"), 7)
    assert torch.equal(rows[7], alone[5]) and not torch.equal(rows[7], rows[5])
    assert not torch.equal(adapt_rows("u", table, old, vocabulary("y"), 7)[5], alone[5])
    assert not torch.equal(adapt_rows("t", table, old, vocabulary("y"), 8)[5], alone[5])
    values = rows[8:].flatten()
    # Cut at two deviations a normal distribution keeps 0.88 of its deviation.
    assert abs(values.mean()) < 0.001 and abs(values.std() / INITIAL_DEVIATION - 0.88) < 0.01
    assert values.abs().max() <= 2 * INITIAL_DEVIATION


def test_characters_of_new_tokens_are_spelt_as_far_as_they_are_known():
    old, new = vocabulary("ab", "bcd"), vocabulary("ddb", "bcd", "xab", "abcdab", "x")
    table = torch.zeros(7, 5, dtype=torch.int64)
    table[5, :2], table[6, :3] = torch.tensor([1, 2]), torch.tensor([2, 3, 4])
    assert adapt_characters(table, old, new)[5:].tolist() == [
        [4, 4, 2, 0, 0],
        [2, 3, 4, 0, 0],
        [1, 2, 0, 0, 0],
        [1, 2, 3, 4, 1],
        [0, 0, 0, 0, 0],
    ]


def adapt(folder, *tokens, name="adapted"):
    new = folder / "new.txt"
    new.write_bytes("".join(f"{token}\n" for token in (*SPECIAL, *tokens)).encode())
    given = ("--model", folder / "model.safetensors", "--vocab", folder / "vocab.txt")
    return run("probe", "vocabulary", *given, "--in", new, "--out", folder / name)


SHARED = CHARACTERS[7:30][::-1]


def outputs(path, text, tokens):
    """Return hidden states of a text, and every target's scores of some tokens."""
    opened = open_pretrained(path, path.parent / "vocab.txt" if path.is_file() else None, CPU)
    row = torch.from_numpy(opened.tokenizer.encode([text]).values.astype(np.int64))[None]
    ids = [opened.vocabulary.ids[token] for token in tokens]
    with torch.no_grad():
        hidden = opened.model.encode({"token_ids": row, "segment_ids": torch.ones_like(row)})
        name, target = next(iter(opened.model.targets.items()))
        states = hidden[..., : hidden.shape[-1] // 2] if name == "bilm" else hidden
        scores = target.logits(states) if name == "mlm" else target.output.logits(states)
    return hidden, scores[..., ids]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("extra", [(), ("新", "词")])
def test_an_adapted_model_says_the_same_of_shared_tokens(tmp_path, kind, extra):
    path = write_model(tmp_path, **MODELS[kind])
    outcome = adapt(tmp_path, *SHARED, *extra)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "adapted"
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors",
        "vocab.txt",
        "architecture.yaml",
    }
    before, after = (outputs(p, SHARED[:9], SHARED) for p in (path, folder))
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(after[1], before[1], atol=1e-5, rtol=1e-5)
    assert f"in both {5 + len(SHARED)}" in outcome.err


@pytest.mark.parametrize("kind", MODELS)
def test_every_tensor_with_rows_of_tokens_is_found(tmp_path, kind):
    tensors, metadata = load_tensors(write_model(tmp_path, **MODELS[kind]))
    size = metadata["token_ids"]["vocab_size"]
    tensors.pop(TABLE, None)
    assert token_tensors(metadata) == {n for n, t in tensors.items() if t.shape[0] == size}


def test_there_and_back_gives_the_same_weights(tmp_path):
    path = write_model(tmp_path)
    tokens = read_vocabulary(tmp_path / "vocab.txt").tokens[5:]
    assert adapt(tmp_path, *reversed(tokens), "新", name="larger").code == 0
    new = tmp_path / "old.txt"
    new.write_bytes((tmp_path / "vocab.txt").read_bytes())
    outcome = run(
        *("probe", "vocabulary", "--model", tmp_path / "larger", "--in", new),
        *("--out", tmp_path / "back"),
    )
    assert outcome.code == 0
    first, second = (load_tensors(p)[1] for p in (path, tmp_path / "back/model.safetensors"))
    assert first["weights"] == second["weights"]
    assert first["token_ids"] == second["token_ids"]
    assert first["vocabulary"] == second["vocabulary"]


def test_a_comparison_from_the_command_line(tmp_path):
    for name, tokens in {"a": "甲乙", "b": "乙丙丁"}.items():
        (tmp_path / name).write_bytes("".join(f"{t}\n" for t in (*SPECIAL, *tokens)).encode())
    outcome = run("probe", "vocabulary", "--vocab", tmp_path / "a", "--in", tmp_path / "b")
    assert outcome.out.splitlines() == [
        "figure\ttokens",
        "first\t7",
        "second\t8",
        "only in the first\t1",
        "only in the second\t2",
        "in both\t6",
        "in both with one id\t5",
    ]


def test_what_is_missing_or_in_the_way_is_told(tmp_path):
    path = write_model(tmp_path)
    vocab = tmp_path / "vocab.txt"
    given = ("probe", "vocabulary", "--model", path, "--vocab", vocab)
    assert run(*given).errors == ["error: --in is missing; give the other vocabulary"]
    outcome = run(*given, "--in", vocab)
    assert (outcome.code, outcome.errors) == (
        64,
        ["error: --out is missing; give the directory of the model"],
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_bytes(b"")
    outcome = run(*given, "--in", vocab, "--out", tmp_path / "full")
    assert outcome.code == 64 and "holds letter.txt" in outcome.errors[0]
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["letter.txt"]
    (tmp_path / "bad.txt").write_bytes("[PAD]\n我\n我\n".encode())
    outcome = run(*given, "--in", tmp_path / "bad.txt", "--out", tmp_path / "new")
    assert outcome.code == 65 and not (tmp_path / "new").exists()
    assert outcome.errors == [f"error: {tmp_path}/bad.txt:3: token '我' already stands in line 2"]
