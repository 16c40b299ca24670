"""Coverage: how often each id stands in a corpus, and what the unknown characters are."""

from pipeline.text.corpus import Corpus
from pipeline.text.coverage import count_ids, describe_coverage, top_unknown
from pipeline.text.tokenizers import build_tokenizer
from tests.pipeline.text.writing import vocabulary, written


def test_ids_are_counted_for_any_parts_and_processes(tmp_path):
    tokens = vocabulary("我", "爱", "京")
    tokenizer = build_tokenizer("bert", tokens)
    corpus = Corpus([written(tmp_path / "c", "我爱他\n\n我他她\n")])
    expected = [0, 3, 0, 0, 0, 2, 1, 0]
    for parts, processes in ((1, 1), (4, 1), (3, 2)):
        assert count_ids(corpus, tokenizer, parts, processes).tolist() == expected
    counts = count_ids(corpus, tokenizer, 1, 1)
    assert describe_coverage(counts, corpus, tokenizer) == {
        "tokens": 6, "unknown": 3, "unknown_rate": 0.5, "coverage": 0.5, "unused": 1,
        "top_unknown": [["他", 2], ["她", 1]],
    }  # fmt: skip


def test_ties_of_unknown_characters_stand_by_code_point(tmp_path):
    tokenizer = build_tokenizer("bert", vocabulary("我"))
    corpus = Corpus([written(tmp_path / "c", "z y我x z\n")])
    assert top_unknown(corpus, tokenizer, top=2) == [("z", 2), ("x", 1)]


def test_nothing_unknown_lists_nothing(tmp_path):
    tokenizer = build_tokenizer("bert", vocabulary("我"))
    corpus = Corpus([written(tmp_path / "c", "我我\n")])
    described = describe_coverage(count_ids(corpus, tokenizer, 1, 1), corpus, tokenizer)
    assert described["coverage"] == 1 and described["top_unknown"] == []
