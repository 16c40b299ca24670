"""Neighbours: cosines by hand and by the plain formula, with and without a sentence."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.errors import ConfigError, DataError
from pipeline.probes.neighbours import NeighboursProbe, nearest_tokens
from pipeline.training.pretrained import open_pretrained
from tests.pipeline.probes.tiny import (
    CHARACTERS,
    CPU,
    LSTM,
    TRANSFORMER,
    KeptRows,
    request,
    write_model,
)


def run(folder, text, **options):
    source = folder / "in.txt"
    source.write_text(text, encoding="utf-8")
    output = KeptRows()
    probe = NeighboursProbe(NeighboursProbe.Config(**options), request(folder, source))
    books = probe.run(output)
    return output.rows, books


def test_the_nearest_by_hand():
    table = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [-1.0, 0.0]])
    candidates = np.array([10, 11, 12, 13])
    queries = torch.tensor([[5.0, 0.0], [0.0, -2.0]])
    found = nearest_tokens(queries, np.array([10, 99]), table, candidates, 2)
    assert found[0] == {12: pytest.approx(0.5**0.5), 11: 0.0} and set(found[1]) == {10, 13}
    every = nearest_tokens(queries, np.array([10, 99]), table, candidates, 50)
    assert list(every[0]) == [12, 11, 13], "all but the word itself"
    assert len(every[1]) == 4, "the word itself is no candidate"


def plain(opened, vectors, own, top):
    """Return the `top` nearest tokens by one cosine after the other."""
    cosines = {
        token: float(functional.cosine_similarity(vectors[own], vectors[i], dim=0))
        for i, token in enumerate(opened.vocabulary.tokens)
        if i >= 5 and i != own
    }
    return sorted(cosines.items(), key=lambda item: -item[1])[:top]


def check(found, expected):
    assert [token for token, _ in expected] == list(found)
    np.testing.assert_allclose([c for _, c in expected], list(found.values()), atol=2e-4)


def test_words_by_themselves(tmp_path):
    write_model(tmp_path)
    rows, books = run(tmp_path, "我\n\n books \nBOOK\n##s\n", top=6)
    opened = open_pretrained(tmp_path / "model.safetensors", tmp_path / "vocab.txt", CPU)
    assert [(row["line"], row["word"]) for row in rows] == [
        (1, "我"),
        (3, "books"),
        (4, "BOOK"),
        (5, "##s"),
    ]
    for row, token in zip(rows, ["我", "books", "book", "##s"], strict=True):
        own = opened.vocabulary.ids[token]
        check(row["neighbours"], plain(opened, opened.word_embedding, own, 6))
    assert books == {"lines": 5, "skipped": 1, "candidates": len(opened.vocabulary.tokens) - 5}


@pytest.mark.parametrize("encoder", [TRANSFORMER, LSTM])
@pytest.mark.parametrize("layer", [0, 1, "last"])
@pytest.mark.parametrize("special", [False, True])
def test_words_in_a_sentence(tmp_path, encoder, layer, special):
    write_model(tmp_path, encoder=encoder)
    sentence = "他们看书，我也看书"
    rows, _ = run(
        tmp_path, f"{sentence}\t看\n", context=True, layer=layer, special_tokens=special, top=5
    )
    opened = open_pretrained(tmp_path / "model.safetensors", tmp_path / "vocab.txt", CPU)
    ids = opened.frame(opened.tokenizer.encode([sentence]), special).values.astype(np.int64)
    position = 2 + special  # its first occurrence
    vectors = []
    for token in range(len(opened.vocabulary.tokens)):
        row = torch.from_numpy(ids)[None].clone()
        row[0, position] = token
        with torch.no_grad():
            emb = opened.model.embedding(row, torch.ones_like(row))
            if layer == 0:
                states = emb
            elif layer == "last":
                states = opened.model.encode(
                    {"token_ids": row, "segment_ids": torch.ones_like(row)}
                )
            elif encoder is TRANSFORMER:
                states = opened.model.encoder.layers[0](emb, None, False)[0]
            else:
                opened.model.encoder.rnn.num_layers = 1
                states = opened.model.encoder.rnn(emb)[0]
        vectors.append(states[0, position])
    found = plain(opened, vectors, opened.vocabulary.ids["看"], 5)
    assert rows[0]["sentence"] == sentence and rows[0]["word"] == "看"
    check(rows[0]["neighbours"], found)


def test_candidates_from_a_file(tmp_path):
    write_model(tmp_path)
    candidates = tmp_path / "candidates.txt"
    candidates.write_text("的\n\n是\n我\n的\n", encoding="utf-8")
    rows, books = run(tmp_path, "我\n看\n", candidates=str(candidates))
    assert books["candidates"] == 3
    assert [set(row["neighbours"]) for row in rows] == [{"的", "是"}, {"的", "是", "我"}]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("我\n龘\n", {}, r"in\.txt:2: '龘' is not one token of the vocabulary$"),
        ("我们\n", {}, r"in\.txt:1: '我们' is not one token of the vocabulary$"),
        ("[MASK]\n", {}, r"in\.txt:1: '\[MASK\]' is not one token"),
        ("我看书\n", {"context": True}, r"in\.txt:1: no tab in it; write the sentence, a tab"),
        ("我看书\t\n", {"context": True}, r"in\.txt:1: '' is not one token"),
        ("我看书\t大\n", {"context": True}, r"in\.txt:1: '大' is not a token of the sentence$"),
        (
            f"{CHARACTERS}\t大\n",
            {"context": True},
            r"in\.txt:1: 46 tokens; the model has positions for 32, shorten the text$",
        ),
    ],
)
def test_words_that_cannot_be_asked(tmp_path, text, options, message):
    write_model(tmp_path)
    with pytest.raises(DataError, match=message):
        run(tmp_path, text, **options)


def test_options_that_cannot_be_met(tmp_path):
    write_model(tmp_path)
    with pytest.raises(ConfigError, match=r"^layer: 9; the model has layers 0"):
        run(tmp_path, "我\n", layer=9)
    candidates = tmp_path / "candidates.txt"
    candidates.write_text("的\n龘\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"candidates\.txt:2: '龘' is not one token"):
        run(tmp_path, "我\n", candidates=str(candidates))
    candidates.write_text("的\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^candidates: 1 tokens; give at least 2$"):
        run(tmp_path, "我\n", candidates=str(candidates))
