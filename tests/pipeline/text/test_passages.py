"""Questions about passages: the file's shape, characters of tokens, windows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.text.passages import (
    UNIT,
    Answer,
    answer_tokens,
    iter_questions,
    token_spans,
    window_starts,
)
from pipeline.text.tables import RowLedger
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import build_vocabulary

CONTEXT = "张三生于北京。"
VOCABULARY = build_vocabulary(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"张三生于北京。", "ab", "##c", "2003"]
)


def squad(*questions, context=CONTEXT):
    return {"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(name="q1", answers=(("北京", 4),)):
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": "生于哪里", "answers": listed}


def read(folder, value, policy="fail", gold="required"):
    path = folder / "data.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    ledger = RowLedger("data.json", policy)
    return list(iter_questions(path, ledger, gold, False)), ledger


def test_a_file_is_read(tmp_path):
    (found,), ledger = read(tmp_path, squad(question(answers=[("北京", 4), ("北京。", 4)])))
    assert (found.id, found.question, found.context) == ("q1", "生于哪里", CONTEXT)
    assert found.answers == (Answer("北京", 4), Answer("北京。", 4))
    assert found.located == Answer("北京", 4)
    assert ledger.rows == ledger.used == 1


def test_an_answer_off_its_offset_follows_the_policy(tmp_path):
    value = squad(question(answers=[("北京", 3), ("北京", 4)]), question("q2", [("北京", -1)]))
    with pytest.raises(DataError) as caught:
        read(tmp_path, value)
    assert list(caught.value.problems) == [
        "data.json:data[0].paragraphs[0].qas[0]: question 'q1': answer '北京' does not stand at "
        "answer_start 3, found '于北'",
        "data.json:data[0].paragraphs[0].qas[1]: question 'q2': answer '北京' does not stand at "
        "answer_start -1, found ''",
    ]
    (first, second), ledger = read(tmp_path, value, "skip")
    assert first.located == Answer("北京", 4)
    assert second.located is None
    assert [answer.text for answer in second.answers] == ["北京"]
    assert ledger.noted == {"answers not at their offset": 2}


def test_gold_is_required_or_ignored(tmp_path):
    with pytest.raises(DataError, match=r"qas\[0\]: question 'q1' has no answer"):
        read(tmp_path, squad(question(answers=[])))
    (found,), _ = read(tmp_path, squad(question(answers=[])), gold="optional")
    assert found.answers is None
    (found,), _ = read(tmp_path, squad(question(answers=[("x", 99)])), gold="ignored")
    assert found.answers is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "no key data at the top"),
        ({"data": {}}, "no list data"),
        ({"data": [{}]}, r"data\[0\]: no list paragraphs"),
        ({"data": [{"paragraphs": ["x"]}]}, r"data\[0\].paragraphs\[0\]: no list qas"),
        (squad({"id": "a"}), "question is missing or empty"),
        (squad(question(), context=" "), "context is missing or empty"),
        (squad("x"), "question is missing or empty"),
        (squad({**question(), "answers": "x"}), "an answer needs text and a whole answer_start"),
        (squad(question(), question()), r"qas\[1\]: id 'q1' stands already in .*qas\[0\]"),
        ('{"data": [NaN]}', "not JSON: NaN is not JSON"),
        ('{"data": [], "data": []}', "key 'data' stands twice"),
        ('{"data": [],}', r"data.json:1:1\d: not JSON"),
        ('{"data": [] // x\n}', "data.json:1:13: not JSON"),
    ],
)
def test_other_shapes_are_refused(tmp_path, value, expected):
    with pytest.raises(DataError, match=expected):
        read(tmp_path, value)


def test_tables_of_questions_have_no_answers(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("id\tquestion\tcontext\na\t谁\t张三\n", encoding="utf-8")
    (found,) = iter_questions(path, RowLedger("data.tsv"), "ignored", False)
    assert (found.id, found.context, found.answers) == ("a", "张三", None)
    with pytest.raises(DataError, match=r"answers stand in a SQuAD-style .json file"):
        list(iter_questions(path, RowLedger("data.tsv"), "required", False))


def test_tokens_know_their_characters():
    tokenizer = build_tokenizer("bert", VOCABULARY)
    text = " 张三 ABC2003年\u200b。"
    (spans,) = token_spans([text], tokenizer, UNIT)
    shown = [text[a:b] for a, b in zip(spans.begins, spans.ends, strict=True)]
    assert shown == ["张", "三", "ABC2003", "年", "。"]
    (spans,) = token_spans(["ABC 2003"], tokenizer, UNIT)
    assert spans.begins.tolist() == [0, 2, 4]
    assert spans.ends.tolist() == [2, 3, 8]


@given(st.text(st.sampled_from("张三生于北京。 abc2003，\u3000ωÉ"), max_size=30))
def test_ids_equal_those_of_the_whole_text(text):
    tokenizer = build_tokenizer("bert", VOCABULARY)
    (spans,) = token_spans([text], tokenizer, UNIT)
    assert spans.ids.tolist() == tokenizer.encode([text]).values.tolist()
    assert (spans.begins < spans.ends).all()
    assert (np.diff(spans.begins) >= 0).all()


def test_answers_cover_tokens():
    tokenizer = build_tokenizer("bert", VOCABULARY)
    (spans,) = token_spans([CONTEXT], tokenizer, UNIT)
    assert answer_tokens(spans, Answer("北京", 4)) == (4, 5)
    (spans,) = token_spans(["张abc三"], tokenizer, UNIT)
    assert answer_tokens(spans, Answer("b", 2)) == (1, 1)
    (spans,) = token_spans(["张  三"], tokenizer, UNIT)
    assert answer_tokens(spans, Answer(" ", 1)) is None


@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 50))
def test_windows_cover_a_passage(count, room, stride):
    starts = window_starts(count, room, min(stride, room))
    covered = {token for start in starts for token in range(start, start + room)}
    assert covered >= set(range(count))
    assert starts[0] == 0
    assert len(starts) == len(set(starts))
    assert all(start + room <= max(count, room) for start in starts)
