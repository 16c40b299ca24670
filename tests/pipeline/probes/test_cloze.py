"""Cloze: gaps where they belong, the model's own probabilities, scores by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.probes import Line
from pipeline.probes.cloze import (
    ClozeProbe,
    Gaps,
    commonest_tokens,
    fill_gaps,
    hide_tokens,
    read_gaps,
)
from tests.pipeline.probes.tiny import CHARACTERS, KeptRows, open_model, request, write_model


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return open_model(tmp_path_factory.mktemp("mlm"))


def ids_of(opened, *tokens):
    return [opened.vocabulary.ids[token] for token in tokens]


def lists(ragged):
    return [part.tolist() for part in np.split(ragged.values, ragged.offsets[1:-1])]


def test_gaps_stand_where_they_are_written(opened):
    lines = [Line(1, "我[MASK]书[MASK][MASK]"), Line(4, "[MASK] books go")]
    gaps = read_gaps(lines, opened.tokenizer, "f")
    assert lists(gaps.ids) == [
        ids_of(opened, "我", "[MASK]", "书", "[MASK]", "[MASK]"),
        ids_of(opened, "[MASK]", "books", "go"),
    ]
    by_row = gaps.by_row(opened.vocabulary.token_ids.mask)
    assert lists(by_row) == [[0, 1, 2], [3]]


def test_a_line_without_a_gap_is_refused(opened):
    with pytest.raises(DataError, match=r"^f:3: no \[MASK\] in it; write it where"):
        read_gaps([Line(1, "[MASK]"), Line(3, "我")], opened.tokenizer, "f")


def test_one_known_token_is_hidden_in_each_line(opened):
    lines = [Line(n, CHARACTERS[: 2 + n % 9] + "龘") for n in range(1, 200)]
    gaps = hide_tokens(lines, opened.tokenizer, None, 7)
    ids = opened.vocabulary.token_ids
    for line, row, answer in zip(gaps.lines, lists(gaps.ids), gaps.answers, strict=True):
        assert row.count(ids.mask) == 1
        place = row.index(ids.mask)
        row[place] = int(answer)
        assert row == opened.tokenizer.encode([line.text]).values.tolist()
        assert answer not in (ids.unk, ids.mask)
    places = {row.index(ids.mask) for row in lists(gaps.ids)}
    assert places == set(range(10)), "every place is hidden some time"


def test_what_is_hidden_depends_on_seed_and_line_number_alone(opened):
    lines = [Line(n, CHARACTERS[:20]) for n in range(1, 40)]
    together = lists(hide_tokens(lines, opened.tokenizer, None, 7).ids)
    alone = [lists(hide_tokens([line], opened.tokenizer, None, 7).ids)[0] for line in lines]
    assert together == alone
    assert together != lists(hide_tokens(lines, opened.tokenizer, None, 8).ids)


def test_lines_without_a_known_token_are_left_out_and_long_ones_cut(opened):
    lines = [Line(1, "龘龘"), Line(2, "[MASK]"), Line(3, "的" * 50)]
    gaps = hide_tokens(lines, opened.tokenizer, 30, 7)
    assert [line.number for line in gaps.lines] == [3]
    assert gaps.ids.lengths.tolist() == [30]


def test_lines_without_any_known_token_at_all(opened):
    gaps = hide_tokens([Line(1, "龘")], opened.tokenizer, None, 7)
    assert not gaps.lines and not len(gaps.ids)


TEXTS = st.lists(
    st.lists(st.sampled_from([*CHARACTERS[:12], "[MASK]"]), min_size=1, max_size=12).map(
        lambda tokens: "".join([*tokens, "[MASK]"])
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(texts=TEXTS, special=st.booleans())
def test_fillings_are_what_the_model_says_of_each_text_alone(opened, texts, special):
    lines = [Line(n, text) for n, text in enumerate(texts, 1)]
    gaps = read_gaps(lines, opened.tokenizer, "f")
    gap_count = sum(text.count("[MASK]") for text in texts)
    answers = np.arange(gap_count) % 20 + 5
    found = fill_gaps(opened, Gaps(lines, gaps.ids, answers), 4, special)
    expected = []
    for row in lists(opened.frame(gaps.ids, special)):
        row = torch.tensor([row])
        with torch.no_grad():
            hidden = opened.model.encode({"token_ids": row, "segment_ids": torch.ones_like(row)})
            logits = opened.target("mlm").logits(hidden[0])
        expected += list(logits[row[0] == opened.vocabulary.token_ids.mask].softmax(-1).numpy())
    assert len(expected) == gap_count
    for gap, probabilities in enumerate(expected):
        best = np.sort(probabilities)[::-1][:4]
        np.testing.assert_allclose(found.probabilities[gap], best, atol=1e-6)
        np.testing.assert_allclose(probabilities[found.ids[gap]], best, atol=1e-6)
        own = probabilities[answers[gap]]
        first, last = (
            1 + (probabilities > own * 1.0001).sum(),
            (probabilities >= own / 1.0001).sum(),
        )
        assert first <= found.ranks[gap] <= last


def test_commonest_tokens_by_hand(opened, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("的的的是是\n的是不龘龘龘龘龘\n", encoding="utf-8")
    found = commonest_tokens(request(tmp_path), corpus, opened.tokenizer, 2)
    assert found == set(ids_of(opened, "的", "是"))


def run(folder, text, **options):
    source = folder / "in.txt"
    source.write_text(text, encoding="utf-8")
    output = KeptRows()
    books = ClozeProbe(ClozeProbe.Config(**options), request(folder, source)).run(output)
    return output.rows, books


def test_the_books_count_hits_and_the_guess_beside_them(tmp_path):
    write_model(tmp_path)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("的的是\n", encoding="utf-8")
    text = "".join(f"{CHARACTERS[n : n + 5]}\n" for n in range(40)) + "\n龘\n"
    rows, books = run(tmp_path, text, mask="random", top=7, corpus=str(corpus))
    assert books["lines"] == 42 and books["skipped"] == 2 and books["gaps"] == 40
    assert books["hit_rate"] == sum(row["rank"] <= 7 for row in rows) / 40
    guess = {"的", "是", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "一"}  # 0 times: the first by id
    assert books["unigram_hit_rate"] == sum(row["answer"] in guess for row in rows) / 40
    for row in rows:
        likely = list(row["predictions"])
        assert (row["answer"] in likely) == (row["rank"] <= 7)
        if row["rank"] <= 7:
            assert likely.index(row["answer"]) == row["rank"] - 1


def test_rows_name_line_and_gap_and_more_tokens_than_there_are_is_all(tmp_path):
    write_model(tmp_path)
    rows, books = run(tmp_path, "我[MASK]书\n\n[MASK]是[MASK]\n", top=10_000)
    assert [(row["line"], row["mask"], row["text"]) for row in rows] == [
        (1, 1, "我[MASK]书"),
        (3, 1, "[MASK]是[MASK]"),
        (3, 2, "[MASK]是[MASK]"),
    ]
    assert books == {"lines": 3, "skipped": 1, "gaps": 3}
    for row in rows:
        assert abs(sum(row["predictions"].values()) - 1) < 1e-4
        assert len(row["predictions"]) == 5 + len(CHARACTERS) + 6
