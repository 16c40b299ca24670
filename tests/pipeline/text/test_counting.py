"""Counts of tokens: equal to a plain count, for any parts, processes and amount of spilling."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from pipeline.errors import MissingError
from pipeline.text.corpus import Corpus
from pipeline.text.counting import CountingJob, build_counting, count_tokens, read_counts
from tests.pipeline.text.writing import written

TEXT = "我爱北京，I love 北京!\n\nlove, Loving 12\n\u3000é 한글\n"


def job(folder, paths, tokenizer="bert", parts=1, labelled=()):
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return CountingJob(Corpus(paths), frozenset(labelled), tokenizer, True, scratch, parts)


def counts(folder, paths, processes=1, **options):
    path, ledger = count_tokens(job(folder, paths, **options), processes)
    pairs = list(read_counts(path))
    assert [token for token, _ in pairs] == sorted({token for token, _ in pairs})
    return dict(pairs), ledger


def plain_bert(text):
    """Count with the library alone, line by line."""
    normal, cut = BertNormalizer(), BertPreTokenizer()
    lines = (cut.pre_tokenize_str(normal.normalize_str(line)) for line in text.split("\n"))
    return Counter(word for line in lines for word, _ in line if len(word) <= 100)


def test_words_ideographs_and_marks_are_counted(tmp_path):
    found, ledger = counts(tmp_path, [written(tmp_path / "c", TEXT)])
    assert found == dict(plain_bert(TEXT))
    assert found["love"] == 2 and found["京"] == 2 and found["e"] == 1
    assert ledger.record() == {
        "blank_lines": 1, "bytes": len(TEXT.encode()), "characters": len(TEXT),
        "documents_in": 3, "documents_out": 3, "lines": 4, "dropped": {},
    }  # fmt: skip


@given(st.text("我ab é\n，\u0301한1", max_size=60), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_parts_and_spills_change_nothing(tmp_path_factory, text, parts, distinct):
    folder = tmp_path_factory.mktemp("c")
    path = written(folder / "c", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.counting.MAX_DISTINCT", distinct)
        patch.setattr("pipeline.text.counting.MAX_OPEN_FILES", 2)
        patch.setattr("pipeline.text.corpus.BLOCK_BYTES", 7)
        found, _ = counts(folder, [path], parts=parts)
    assert found == dict(plain_bert(text))


def test_processes_change_nothing(tmp_path):
    path = written(tmp_path / "c", TEXT * 50)
    expected, ledger = counts(tmp_path, [path], parts=6)
    found, other = counts(tmp_path, [path], parts=6, processes=3)
    assert found == expected and other.record() == ledger.record()


def test_long_runs_are_cut_and_long_words_left_out():
    counting = build_counting("bert", lowercase=True)
    counting.add(f"{'a' * 101} {'b' * 100} {'한' * 40}{'x' * 61}\n")
    assert counting.take() == {"b" * 100: 1}
    assert counting.take() == {}


def test_char_counts_code_points_but_blanks(tmp_path):
    text = "我 a\u3000我\n\ta\n"
    found, _ = counts(tmp_path, [written(tmp_path / "c", text)], tokenizer="char")
    assert found == {"我": 2, "a": 2}


def test_space_counts_words_between_spaces(tmp_path):
    text = " 我爱  北京 a\tb\u3000\n我爱\n" + "x" * 101 + "\n"
    found, _ = counts(tmp_path, [written(tmp_path / "c", text)], tokenizer="space")
    assert found == {"我爱": 2, "北京": 1, "a\tb": 1}


def test_word_counts_what_jieba_finds(tmp_path):
    pytest.importorskip("jieba")
    text = "我来到 北京\n来到\n"
    found, _ = counts(tmp_path, [written(tmp_path / "c", text)], tokenizer="word")
    assert found == {"我": 1, "来到": 2, "北京": 1}


def test_labels_are_not_words(tmp_path):
    one, two = written(tmp_path / "one", "12\t好\t坏\n"), written(tmp_path / "two", "12\t好\n")
    found, _ = counts(tmp_path, [one, two], labelled=[one])
    assert found == {"12": 1, "好": 2, "坏": 1}


def test_a_disk_that_refuses_is_told(tmp_path):
    broken = job(tmp_path, [written(tmp_path / "c", TEXT)])
    broken.scratch.rmdir()
    with pytest.raises(MissingError, match=re.escape(str(broken.scratch))):
        count_tokens(broken, 1)
