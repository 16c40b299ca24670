"""The stage vocab through the command line."""

import json
import os

import pytest

from pipeline.artifacts import read_json_artifact
from pipeline.text.vocabulary import SPECIAL_TOKENS
from tests.pipeline.stages.data_command import contents, run, run_apart, tree, vocab, write_vocab
from tests.pipeline.text.writing import written

TEXT = "我爱北京，我爱 Loving love\n\n北京 loves 我 love\n"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "in").mkdir()
    return written(tmp_path / "in" / "corpus.txt", TEXT)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def tokens(out):
    return (out / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]


def test_tokens_stand_by_count_and_the_record_says_how_they_cover(corpus, out):
    outcome = vocab(out, corpus, size=14)
    assert outcome.code == 0
    assert outcome.lines == ["vocab: 14 tokens cover 78.57% of 14 in the text"]
    # l starts 4 words; 我 stands 3 times; then ties by code points.
    assert tokens(out) == [
        *SPECIAL_TOKENS,
        "##o",
        "##v",
        "l",
        "##e",
        "我",
        "love",
        "京",
        "北",
        "爱",
    ]
    record = read_json_artifact(out / "vocab.json", "vocab")
    assert record["size"] == record["asked"] == 14
    assert (record["tokens"], record["unknown"], record["coverage"]) == (14, 3, 0.785714)
    assert record["top_unknown"] == [[letter, 1] for letter in "gins，"]
    assert record["ledger"]["documents_in"] == 2 and record["ledger"]["blank_lines"] == 1
    assert record["stamp"]["settings"]["size"] == 14
    assert sorted(record["stamp"]["inputs"]) == ["corpora"]
    assert tree(out) == ["vocab.json", "vocab.txt"]
    assert (out / "vocab.txt").stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("tokenizer", ["bert", "char", "space"])
def test_the_same_bytes_for_any_number_of_processes(corpus, tmp_path, tokenizer):
    found = []
    for processes in (1, 2, 3, 8):
        out = tmp_path / str(processes)
        more = ("--set", f"processes={processes}")
        assert vocab(out, corpus, tokenizer=tokenizer, min_count=2, more=more).code == 0
        found.append(contents(out))
    assert all(other == found[0] for other in found)


def test_neither_line_ends_nor_hash_seeds_nor_locales_matter(corpus, tmp_path):
    other = written(tmp_path / "crlf.txt", TEXT.replace("\n", "\r\n"))
    found = []
    for number, path in enumerate((corpus, other)):
        out = tmp_path / str(number)
        environment = {"PYTHONHASHSEED": str(number), "LC_ALL": "C", "PYTHONUTF8": "0"}
        command = ("vocab", "--corpus", path, "--out", out / "vocab.txt")
        assert run_apart(*command, **environment).code == 0
        found.append(contents(out))
    assert found[0] == found[1]


def test_a_subencoders_vocabulary_holds_the_characters_of_the_tokens(corpus, out):
    vocab(out, corpus, characters=True, min_count=2)
    found = tokens(out)[len(SPECIAL_TOKENS) :]
    assert found == ["l", "o", "v", "e", "我", "京", "北", "爱"]


def test_words_of_text_cut_beforehand(tmp_path, out):
    path = written(tmp_path / "c.txt", "我爱 北京\n北京 [MASK]\n")
    assert vocab(out, path, tokenizer="space").code == 0
    assert tokens(out)[5:] == ["北京", "我爱"]


def test_more_tokens_asked_than_there_are(tmp_path, out):
    path = written(tmp_path / "c.txt", "我爱\n")
    outcome = vocab(out, path, size=100)
    assert outcome.code == 0
    assert outcome.lines[0] == f"warning: {out / 'vocab.txt'}: 100 tokens asked, 7 there are"


def test_a_published_vocabulary_is_checked_and_copied(tmp_path, corpus, out):
    published = write_vocab(tmp_path / "p.txt", "我", "爱", "\u2028")
    other = b"\xef\xbb\xbf" + published.read_bytes().replace(b"\n", b"\r\n")
    crlf = written(tmp_path / "crlf.txt", other)
    for path in (published, crlf):
        outcome = run("vocab", "--import", path, "--out", out / "vocab.txt")
        notes = [f"note: {crlf}: byte order mark dropped"] if path == crlf else []
        assert (outcome.code, outcome.lines) == (0, notes)
        assert (out / "vocab.txt").read_bytes() == published.read_bytes()
    measured = run("vocab", "--import", published, "--corpus", corpus, "--out", out / "vocab.txt")
    assert measured.lines == ["vocab: 8 tokens cover 35.71% of 14 in the text"]
    record = read_json_artifact(out / "vocab.json", "vocab")
    assert record["unused"] == 1 and "ledger" not in record


def test_padding_need_not_be_the_first_token(tmp_path, out):
    path = written(tmp_path / "p.txt", "我\n" + "\n".join(reversed(SPECIAL_TOKENS)) + "\n")
    outcome = run("vocab", "--import", path, "--out", out / "vocab.txt")
    assert (outcome.code, outcome.lines) == (
        0,
        [f"note: {out / 'vocab.txt'}: [PAD] has id 5, not 0"],
    )


def test_labels_of_a_fetched_corpus_are_not_counted(tmp_path, out):
    source = written(tmp_path / "l.txt", "1\t我我\n0\t爱\n")
    spec = {"sources": [{"path": "l.txt"}], "format": "labelled"}
    corpus = tmp_path / "fetched" / "c.txt"
    command = ("fetch", "--spec", json.dumps(spec), "--mirror", source.parent, "--out", corpus)
    assert run(*command).code == 0
    assert vocab(out, corpus).code == 0
    assert tokens(out)[5:] == ["我", "爱"]


REFUSED = [
    # (reliability matrix row, content of the corpus, exit code, message)
    ("A2", "", 65, "F: no documents in 0 lines"),
    ("A3", "\n\n \n", 65, "F: no documents in 3 lines"),
    ("A5", "好\n".encode() + "好书".encode("gb18030") + b"\n", 65, "F:2: not UTF-8 at byte 4"),
    ("A6", "好".encode()[:2], 65, "F:1: not UTF-8 at byte 0, found b'\\xe5\\xa5' (unexpected end"),
    ("A7", b"a\xed\xa0\x80b\n", 65, "F:1: not UTF-8 at byte 1"),
    ("A8", b"a\0\n", 65, "F:1: a NUL byte; is this a text file?"),
    ("A12", b"a\n" + b"x" * (1 << 21) + b"\n", 65, "F:2: a line of 2097153 bytes; at most 1048576"),
    ("A13", b"\x1f\x8b\x08\0\0", 65, "F: this is a gzip archive"),
    ("A13", b"\x80\x04\x95\0", 65, "F: this is a pickle"),
]


@pytest.mark.parametrize(("content", "code", "message"), [row[1:] for row in REFUSED])
def test_what_is_no_corpus_is_refused(tmp_path, out, content, code, message):
    path = written(tmp_path / "c.txt", content)
    outcome = vocab(out, path)
    assert (outcome.code, len(outcome.lines)) == (code, 1)
    assert outcome.lines[0].replace(str(path), "F").startswith(f"error: {message}")
    assert not out.exists()


def test_malformed_lines_are_skipped_where_wanted(tmp_path, out):
    path = written(tmp_path / "c.txt", b"\xff\na\0\n" + "好\n".encode() + b"x" * (1 << 21))
    assert vocab(out, path, bad_rows="skip").code == 0
    ledger = read_json_artifact(out / "vocab.json")["ledger"]
    assert ledger["dropped"] == {"NUL byte": 1, "not UTF-8": 1}
    assert ledger["cut_lines"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--corpus", "none.txt"), 66, "none.txt: no such file (--corpus)"),
        (("--corpus", "."), 65, ".: not a regular file"),
        (("--corpus", "/dev/zero"), 65, "/dev/zero: not a regular file"),
        ((), 64, "give --corpus to build a vocabulary, or --import"),
        (("--corpus", "c.txt", "--set", "size=5"), 78, "size 5 leaves no room beside 5"),
        (("--corpus", "c.txt", "--set", "sise=5"), 78, "--spec.sise: unknown key"),
        (("--corpus", "c.txt", "--set", "tokenizer=wordpiece"), 78, "--spec.tokenizer: input"),
        (("--corpus", "c.txt", "--set", "processes=0"), 78, "--set.processes: input should"),
        (("--corpus", "c.txt", "./c.txt"), 78, "c.txt and c.txt are one file; give it once"),
        (("--import", "none.txt"), 66, "none.txt: no such file"),
    ],
)  # fmt: skip
def test_wrong_command_lines(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "c.txt", TEXT)
    outcome = run("vocab", *arguments, "--out", "out/vocab.txt")
    assert outcome.code == code and len(outcome.lines) == 1
    assert message in outcome.lines[0]
    assert tree(tmp_path) == ["c.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty; one token a line is needed"),
        ("[PAD]\n[PAD]\n", "F:2: token '[PAD]' already stands in line 1"),
        ("我\n\n爱\n", "F:2: blank line"),
        ('{"model": {"type": "WordPiece"}}', "a JSON file"),
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path, out, content, message):
    path = written(tmp_path / "p.txt", content)
    outcome = run("vocab", "--import", path, "--out", out / "vocab.txt")
    assert outcome.code == 65 and message in outcome.lines[0].replace(str(path), "F")
    assert not out.exists()


def test_the_record_may_not_overwrite_the_vocabulary(corpus, out):
    outcome = run("vocab", "--corpus", corpus, "--out", out / "vocab.json")
    assert outcome.code == 64 and "use .txt" in outcome.lines[0]


def test_a_full_disk_leaves_nothing(corpus, out):
    written(corpus, "".join(f"{chr(0x4E00 + n)}" for n in range(8000)))
    outcome = run_apart("vocab", "--corpus", corpus, "--out", out / "vocab.txt", file_limit=10_000)
    assert outcome.code == 74
    assert outcome.lines[0].endswith("file size limit reached")
    assert not out.exists()


@pytest.mark.parametrize("name", ["with space", "quote'\"", "文件夹", "-dash"])
def test_any_name_of_a_folder(tmp_path, name, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    path = written(folder / f"{name}.txt", TEXT)
    assert vocab(folder, path).code == 0
    assert len(tree(folder)) == 3


def test_inputs_may_be_read_only(corpus, out):
    corpus.chmod(0o444)
    os.chmod(corpus.parent, 0o555)
    before = contents(corpus.parent)
    assert vocab(out, corpus).code == 0
    assert contents(corpus.parent) == before


def test_what_a_killed_run_left_is_removed(corpus, out):
    out.mkdir()
    (out / ".vocab.txt.work-4194305").mkdir()
    written(out / ".vocab.txt.work-4194305" / "part_0_0", "a\t1\n")
    written(out / ".vocab.txt.tmp-4194305-ab", "half")
    assert vocab(out, corpus).code == 0
    assert tree(out) == ["vocab.json", "vocab.txt"]
