"""Corpora: byte ranges cut them without loss, and malformed text follows the policy."""

import os
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ArtifactError, ConfigError, DataError, MissingError
from pipeline.text.corpus import Corpus, line_number
from pipeline.text.ledger import Ledger
from tests.pipeline.text.writing import written


def read(paths, parts=1, ledger=None, block_bytes=1 << 20, **options):
    """Return the text of each part."""
    ledger = Ledger() if ledger is None else ledger
    corpus = Corpus(paths, **options)
    return [
        "".join(block.text for block in corpus.iter_blocks(part, parts, ledger, block_bytes))
        for part in range(parts)
    ]


def normal(data):
    """Return what a file's lines are, written plainly."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode().replace("\r\n", "\n").replace("\r", "\n")
    return text if not text or text.endswith("\n") else text + "\n"


LINES = st.lists(st.sampled_from(["", " ", "a", "我爱", "b\u2028c", "\t", "x" * 9]), max_size=12)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def files(draw):
    """Return the bytes of a file of mixed line ends, perhaps without the last one."""
    lines = draw(LINES)
    text = "".join(line + draw(ENDS) for line in lines)
    start = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return start + (text + draw(st.sampled_from(["", "end"]))).encode()


@given(st.lists(files(), min_size=1, max_size=3), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_ranges_of_lines_join_to_the_whole(tmp_path_factory, contents, parts):
    folder = tmp_path_factory.mktemp("c")
    paths = [written(folder / str(number), data) for number, data in enumerate(contents)]
    assert "".join(read(paths, parts)) == "".join(map(normal, contents))


def documents(text):
    """Return the documents of a text, written plainly."""
    return [
        part for part in re.split(r"\n(?:[ \t]*\n)+", "\n\n" + text + "\n\n") if part.strip("\n")
    ]


@given(st.lists(files(), min_size=1, max_size=3), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
@example([b"a\r\n\r\nb\r\n \t\r\nc"], 6)
@example([b"a\r\rb\r\r\rc\r"], 5)
@example([b"a\n  \n  \nb"], 9)
def test_ranges_of_documents_join_to_the_whole(tmp_path_factory, contents, parts):
    folder = tmp_path_factory.mktemp("c")
    paths = [written(folder / str(number), data) for number, data in enumerate(contents)]
    expected = [document for data in contents for document in documents(normal(data))]
    corpus = Corpus(paths, documents=True)
    for size in (1, 1 << 20):  # a document ends at the end of its block at the latest
        ranges = (corpus.iter_blocks(part, parts, Ledger(), size) for part in range(parts))
        blocks = [block for blocks in ranges for block in blocks]
        assert [document for b in blocks for document in documents(b.text)] == expected


@pytest.mark.parametrize("documents_wanted", [False, True])
def test_blocks_smaller_than_the_file_end_at_borders(tmp_path, monkeypatch, documents_wanted):
    monkeypatch.setattr("pipeline.text.corpus.BLOCK_BYTES", 10)
    text = "".join(f"{'字' * (number % 5)}\r\n" for number in range(50))
    path = written(tmp_path / "c", text)
    for parts in (1, 2, 7):
        found = "".join(read([path], parts, documents=documents_wanted, block_bytes=10))
        assert found == normal(text.encode())


def test_each_part_reads_little_more_than_its_range(tmp_path):
    path = written(tmp_path / "c", "字" * 10 + "\n" + "a\n" * 300_000)
    counts = Ledger()
    read([path], 64, counts)
    assert counts.counts["bytes"] == path.stat().st_size


def test_other_line_separators_are_text(tmp_path):
    line = "a\u2028b\x85c\x0bd\x1ce\x0cf\u2029g"
    counts = Ledger()
    assert read([written(tmp_path / "c", line + "\n")], ledger=counts) == [line + "\n"]
    assert counts.counts["lines"] == 1


def test_line_ends_and_mark_do_not_change_the_digest(tmp_path):
    plain = written(tmp_path / "a", "我\n\n爱\n")
    for number, other in enumerate([b"\xef\xbb\xbf", b""]):
        data = other + "我\r\n\r爱".encode()
        assert Corpus([written(tmp_path / str(number), data)]).digest() == Corpus([plain]).digest()


def refused(tmp_path, content, kind=DataError, **options):
    path = written(tmp_path / "c.txt", content)
    with pytest.raises(kind) as caught:
        read([path], 3, **options)
    return str(caught.value).replace(str(path), "F")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\n" + "好的书".encode("gb18030") + b"\n", "F:2: not UTF-8 at byte 3, found b'\\xba"),
        (
            b"ok\r\n\xef\xbb",
            "F:2: not UTF-8 at byte 4, found b'\\xef\\xbb' (unexpected end of data)",
        ),
        (b"a\rb\r\xed\xa0\x80\n", "F:3: not UTF-8 at byte 4"),
        (b"a\nb\0c\n", "F:2: a NUL byte; is this a text file?"),
        (b"\x1f\x8b\x08\0", "F: this is a gzip archive"),
        (b"PK\x03\x04rest", "F: this is a zip archive or a spreadsheet"),
        (b"ARROW1\0\0", "F: this is an Arrow file"),
        (b"\x80\x04\x95", "F: this is a pickle"),
        ("我".encode("utf-16"), "F: this is UTF-16 text, found bytes"),
    ],
)
def test_what_is_not_utf8_text_is_refused(tmp_path, content, message):
    assert message in refused(tmp_path, content)


def test_the_message_names_the_likely_encoding(tmp_path):
    assert "perhaps gb18030, save it as UTF-8" in refused(tmp_path, "一本好书".encode("gb18030"))


def test_skipping_drops_and_counts_malformed_lines(tmp_path):
    path = written(tmp_path / "c", b"a\n\xff\n\nb\0\nc\n\xe6\x88")
    counts = Ledger()
    assert read([path], ledger=counts, bad_rows="skip") == ["a\n\nc\n"]
    assert counts.record() == {
        "bytes": 5, "characters": 5, "documents_in": 3, "lines": 3,
        "dropped": {"NUL byte": 1, "not UTF-8": 2},
    }  # fmt: skip


def test_skipped_lines_of_documents_are_sentences(tmp_path):
    path = written(tmp_path / "c", b"a\n\xff\nb\n\nc\n")
    counts = Ledger()
    assert read([path], ledger=counts, bad_rows="skip", documents=True) == ["a\nb\n\nc\n"]
    assert counts.record()["dropped_sentences"] == {"not UTF-8": 1}
    assert counts.record()["sentences_in"] == 1


@pytest.fixture
def short_lines(monkeypatch):
    monkeypatch.setattr("pipeline.text.corpus.MAX_LINE_BYTES", 100)
    monkeypatch.setattr("pipeline.text.corpus.BLOCK_BYTES", 100)


@pytest.mark.usefixtures("short_lines")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", ["", "b\n"])
def test_over_long_lines_are_refused_or_cut(tmp_path, end, tail):
    content = f"a{end}{'字' * 333}{end}{tail}"
    expected = f"F:2: a line of {999 + len(end)} bytes; at most 100"
    assert expected in refused(tmp_path, content)
    counts = Ledger()
    text = read([tmp_path / "c.txt"], ledger=counts, bad_rows="skip")[0]
    pieces = text.removesuffix("\n").split("\n")
    assert "".join(pieces) == "a" + "字" * 333 + tail.strip()
    assert max(len(piece.encode()) for piece in pieces) <= 100
    # Ten pieces of 99 bytes and a rest of three characters.
    assert [len(piece) for piece in pieces[1:12]] == [33] * 10 + [3]
    assert counts.counts["cut_lines"] == 10


@pytest.mark.usefixtures("short_lines")
def test_an_over_long_last_line_without_an_end(tmp_path):
    assert "F:1: a line of 250 bytes" in refused(tmp_path, "x" * 250)
    text = read([tmp_path / "c.txt"], bad_rows="skip")[0]
    assert text == "x" * 100 + "\n" + "x" * 100 + "\n" + "x" * 50 + "\n"


@pytest.mark.usefixtures("short_lines")
def test_lines_of_the_limit_pass(tmp_path):
    text = "x" * 100 + "\n" + "y" * 99 + "\n" + "z" * 100
    assert read([written(tmp_path / "c", text)]) == [text + "\n"]


def test_over_long_documents_are_refused_or_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.text.corpus.MAX_DOCUMENT_BYTES", 40)
    monkeypatch.setattr("pipeline.text.corpus.BLOCK_BYTES", 16)
    content = "head\n\n" + "sentence\n" * 20
    message = refused(tmp_path, content, documents=True, block_bytes=20)
    assert "a document of over 40 bytes; put blank lines between documents" in message
    counts = Ledger()
    options = {"documents": True, "bad_rows": "skip", "block_bytes": 20}
    assert read([tmp_path / "c.txt"], ledger=counts, **options) == [content]
    assert counts.counts["cut_documents"] > 1


def test_only_regular_files_that_are_there(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            Corpus([type(tmp_path)(path)])
    with pytest.raises(MissingError, match="no such file"):
        Corpus([tmp_path / "none"])


def test_the_same_file_twice_is_refused(tmp_path):
    path = written(tmp_path / "c", "a\n")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match=r"c and .*link are one file; give it once"):
        Corpus([path, tmp_path / "link"])


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    path = written(tmp_path / "c", "a\n" * 10)
    corpus = Corpus([path])
    blocks = corpus.iter_blocks(0, 1, Ledger())
    next(blocks)
    written(path, "a\n" * 11)
    with pytest.raises(ArtifactError, match="changed while it was read, 20 bytes before, 22 now"):
        next(blocks)


def test_a_file_replaced_by_one_of_equal_size_is_told(tmp_path):
    path = written(tmp_path / "c", "a\n")
    corpus = Corpus([path])
    other = written(tmp_path / "d", "b\n")
    os.utime(other, ns=(time.time_ns(), path.stat().st_mtime_ns))
    other.replace(path)
    with pytest.raises(ArtifactError, match="changed while it was read"):
        list(corpus.iter_blocks(0, 1, Ledger()))


@given(files(), st.integers(0, 60))
def test_line_numbers_count_all_kinds_of_ends(tmp_path_factory, data, offset):
    path = written(tmp_path_factory.mktemp("c") / "c", data)
    head = data[:offset]
    ends = len(re.findall(rb"\r\n|\r|\n", head))
    assert line_number(path, len(head)) == ends + 1
