"""The settings of sources: one place for a file, parts that are whole, shares that sum to one."""

import pytest

from pipeline.errors import ConfigError
from pipeline.sources import CorpusSpec, DatasetSpec, Source
from pipeline.spec import validate

SHA = "0" * 64
FILE = {"path": "a.tsv"}
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({"package": "p", "file": "a/b.txt", "sha256": SHA}, "p:a/b.txt"),
        ({"path": "a.txt"}, "a.txt"),
        ({"url": "https://example.org/a.txt", "sha256": SHA}, "https://example.org/a.txt"),
        ({"dataset": "d", "part": "dev"}, "d/dev"),
    ],
)
def test_a_source_is_in_one_place(values, title):
    assert validate(Source, values, "s").title == title


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give exactly one of package, url, path, dataset; there is none"),
        ({"path": "a", "dataset": "d", "part": "dev"}, "there is path and dataset"),
        ({"package": "p", "sha256": SHA}, "package and file go together"),
        ({"path": "a", "part": "dev"}, "dataset and part go together"),
        ({"package": "p", "file": "a"}, "a source from elsewhere is pinned"),
        ({"dataset": "d", "part": "dev", "sha256": SHA}, "its own ledger holds it|no sha256 here"),
        ({"path": "a", "sha256": "abc"}, "s.sha256: string should match pattern"),
        ({"url": "ftp://example.org/a", "sha256": SHA}, "s.url: string should match pattern"),
        ({"path": "a", "label": 1.5}, "s.label"),
    ],
)
def test_a_source_in_no_place_or_two_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        validate(Source, values, "s")


def test_sentences_are_cut_in_documents_alone():
    values = {"sources": [FILE], "sentences": "middle"}
    assert validate(CorpusSpec, {**values, "format": "documents"}, "c").sentences == "middle"
    with pytest.raises(ConfigError, match="goes with format documents, not lines"):
        validate(CorpusSpec, values, "c")


@pytest.mark.parametrize(
    ("values", "drops"),
    [
        ({"files": {"train": FILE, "dev": FILE, "test": FILE}}, False),
        ({"split": {"sources": [FILE], "shares": SHARES}}, True),
        ({"files": {"train": FILE, "test": FILE}, "split": {"shares": {"train": 0.9, "dev": 0.1}}},
         True),
        ({"files": {"test": FILE}, "duplicates": "keep",
          "split": {"sources": [FILE], "shares": {"train": 0.9, "dev": 0.1}}}, False),
    ],
)  # fmt: skip
def test_every_part_is_given_once(values, drops):
    assert validate(DatasetSpec, {"task": "classify", **values}, "d").drops_duplicates == drops


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "parts none; files and split together must give train, dev and test once each"),
        ({"files": {"train": FILE, "dev": FILE}}, "parts train, dev; files and split"),
        ({"files": {"train": FILE}, "split": {"sources": [FILE], "shares": SHARES}},
         "parts train, train, dev, test"),
        ({"files": {"test": FILE}, "split": {"shares": {"train": 0.9, "dev": 0.1}}},
         "no sources; give some, or a train file to cut"),
        ({"split": {"sources": [FILE], "shares": {"train": 0.8, "dev": 0.1, "test": 0.2}}},
         "the shares sum to 1.1; they must sum to 1"),
        ({"split": {"sources": [FILE], "shares": {"train": 1.0}}}, "at least 2 items"),
    ],
)  # fmt: skip
def test_parts_that_are_missing_or_given_twice(values, message):
    with pytest.raises(ConfigError, match=message):
        validate(DatasetSpec, {"task": "classify", **values}, "d")
