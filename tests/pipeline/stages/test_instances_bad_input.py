"""The stage instances through the command line: what is refused, and where it must work."""

import json
import shutil

import pytest

from pipeline.artifacts import read_json_artifact, write_json
from tests.pipeline.stages.data_command import (
    contents,
    instances,
    refused,
    run,
    run_apart,
    vocab,
    write_vocab,
)
from tests.pipeline.text.writing import written

LINES = "".join(f"我爱{'北京' * (number % 9)}，{number}\n" for number in range(200))
LABELLED = "".join(f"{number % 3}\t我{number}\n" for number in range(90))


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "v").mkdir()
    return write_vocab(
        tmp_path / "v" / "v.txt", *"我爱北京0123456789", *(f"##{n}" for n in range(10))
    )


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "in").mkdir()
    return written(tmp_path / "in" / "c.txt", LINES)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def ledger(out):
    return read_json_artifact(out / "manifest.json", "instances")["ledger"]


REFUSED = [
    ("A2 empty", "", {}, 65, "F: no documents in 0 lines"),
    ("A3 blank", "\n \n\n", {}, 65, "F: no documents in 3 lines"),
    ("nothing left", "\u3000\n\u200b\n", {}, 65,
     "F: none of 2 documents is left (held out: 0, no tokens: 2)"),
    ("A5 GBK", "我\n".encode() + "好书".encode("gbk"), {}, 65, "F:2: not UTF-8 at byte 4"),
    ("A6 cut", "我\n".encode()[:2], {}, 65, "F:1: not UTF-8 at byte 0"),
    ("A7 surrogate", b"ab\xed\xa0\x80\n", {}, 65, "F:1: not UTF-8 at byte 2"),
    ("A8 NUL", b"a\n\0\n", {}, 65, "F:2: a NUL byte"),
    ("A12 long line", b"x" * (3 << 20), {}, 65, "F:1: a line of 3145728 bytes; at most 1048576"),
    ("A13 zip", b"PK\x03\x04\0\0", {}, 65, "F: this is a zip archive"),
    ("A17 one sentence", "我\n\n爱\n", {"kind": "sentences"}, 65,
     "F: all 2 documents have one sentence; target nsp needs"),
    ("A17 one document", "我\n", {"kind": "sentences"}, 65,
     "F: none of 1 documents is left (held out: 0, no other document: 1)"),
    ("A18 fields", "1\t我\n我\n", {"kind": "labelled"}, 65, "F:2: 1 tab-separated fields"),
    ("A18 fields", "我\t爱\t北\n", {"kind": "parallel"}, 65, "F:1: 3 tab-separated fields"),
    ("A19 label", "1\t我\npos\t爱\n", {"kind": "labelled"}, 65,
     "F:2: label 'pos' is not an integer in 0..99999"),
    ("D7 one class", "1\t我\n1\t爱\n", {"kind": "labelled"}, 65, "F: every line has label 1"),
    ("A20 unknown", "我坏坏好\x1b\n", {"max_unknown": 0.5}, 65,
     "F: 75.0% of the tokens are unknown to the vocabulary, at most 50.0% (max_unknown); most "
     "often '坏' U+574F (2), '好' U+597D (1)"),
    ("kind", "我\n", {"kind": "line"}, 78, "no instance kind 'line'; did you mean 'lines'?"),
    ("option", "我\n", {"dup_factor": 2}, 78, "instances.dup_factor: unknown key"),
    ("type", "我\n", {"seq_length": "128"}, 78, "--spec.seq_length: input should be a valid"),
    ("range", "我\n", {"held_out": 1.0}, 78, "--spec.held_out: input should be less than 1"),
    ("room", "我\n\n爱\n", {"kind": "sentences", "seq_length": 4}, 78, "a pair takes at least 5"),
    ("word", "我\n", {"tokenizer": "piece"}, 78, "--spec.tokenizer: input should be"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "spec", "code", "message"), [row[1:] for row in REFUSED],
                         ids=[row[0] for row in REFUSED])  # fmt: skip
@pytest.mark.parametrize("processes", [1, 2])
def test_what_cannot_be_built(tmp_path, vocabulary, out, content, spec, code, message, processes):
    path = written(tmp_path / "c.txt", content)
    more = ("--set", f"processes={processes}")
    outcome = instances(out, vocabulary, path, more=more, **{"shards": 2, **spec})
    problems = [line for line in outcome.lines if line.startswith("error: ")]
    assert (outcome.code, len(problems)) == (code, 1), outcome.lines
    assert message in problems[0].replace(str(path), "F")
    assert not out.exists()
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())


def test_a_failure_keeps_the_shards_of_earlier_jobs(vocabulary, corpus, out):
    more = ("--shards", "0")
    assert instances(out, vocabulary, corpus, more=more, shards=3).code == 0
    before = contents(out)
    written(corpus, LINES.encode()[:-1] + b"\xff")
    refused(instances(out, vocabulary, corpus, more=("--shards", "1,2"), shards=3), 65, "not UTF-8")
    assert contents(out) == before


def test_malformed_lines_are_skipped_and_counted(tmp_path, vocabulary, out):
    content = b"1\t\xe6\x88\x91\nx\t\xe6\n2\t\0\nno\n0\t\xe7\x88\xb1\nx\t1\n"
    path = written(tmp_path / "c.txt", content)
    assert instances(out, vocabulary, path, kind="labelled", bad_rows="skip").code == 0
    assert ledger(out)["dropped"] == {
        "NUL byte": 1, "label is not a number": 1, "not UTF-8": 1, "wrong number of fields": 1,
    }  # fmt: skip
    assert ledger(out)["documents_in"] == 6


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("none", 66, "no such file (--corpus)"), (".", 65, "not a regular file")],
)
def test_corpora_that_are_not_files(vocabulary, out, tmp_path, name, code, message):
    refused(instances(out, vocabulary, tmp_path / name), code, message)


def test_a_vocabulary_that_is_missing_or_none(corpus, tmp_path, out):
    refused(instances(out, tmp_path / "none", corpus), 66, "none: no such file")
    refused(instances(out, written(tmp_path / "v.txt", "我\n我\n"), corpus), 65, "already stands")


def test_a_vocabulary_made_for_another_tokenizer(tmp_path, corpus, out):
    vocab(tmp_path, corpus, tokenizer="char")
    message = "made with tokenizer char, the instances ask for bert"
    refused(instances(out, tmp_path / "vocab.txt", corpus), 78, message)
    assert instances(out, tmp_path / "vocab.txt", corpus, tokenizer="char").code == 0


def test_a_vocabulary_that_was_edited(tmp_path, corpus, out):
    vocab(tmp_path, corpus)
    path = tmp_path / "vocab.txt"
    text = path.read_text(encoding="utf-8")
    path.chmod(0o644)
    written(path, text + "新\n")
    refused(instances(out, path, corpus), 76, "vocab.json says ")


def test_a_corpus_of_another_format(tmp_path, vocabulary, out):
    written(tmp_path / "l.txt", LABELLED)
    spec = {"sources": [{"path": "l.txt"}], "format": "labelled"}
    corpus = tmp_path / "data" / "c.txt"
    run("fetch", "--spec", json.dumps(spec), "--mirror", tmp_path, "--out", corpus)
    message = "corpus c has format labelled; instances of kind lines read lines or documents"
    refused(instances(out, vocabulary, corpus), 78, message)
    assert instances(out, vocabulary, corpus, kind="labelled").code == 0
    (fetched,) = read_json_artifact(out / "manifest.json")["corpora"]
    assert (fetched["name"], fetched["documents_out"]) == ("c", 90)


def test_a_fetched_corpus_that_was_changed(tmp_path, vocabulary, corpus, out):
    write_json(
        corpus.with_suffix(".ledger.json"),
        {"stamp": {"stage": "fetch", "format": 1}, "format": "lines", "bytes": 3},
    )
    refused(instances(out, vocabulary, corpus), 76, "c.ledger.json says 3; fetch it again")


def test_a_full_disk_leaves_nothing(tmp_path, vocabulary, out):
    path = written(tmp_path / "c.txt", "我爱北京" * 4000 + "\n")
    spec = json.dumps({"kind": "lines", "shards": 2})
    command = ("instances", "--spec", spec, "--corpus", path, "--vocab", vocabulary, "--out", out)
    outcome = run_apart(*command, file_limit=8192)
    assert outcome.code == 74
    assert outcome.lines[-1].endswith(": file size limit reached")
    assert not out.exists()


def test_hash_seeds_and_locales_do_not_matter(tmp_path, vocabulary, corpus):
    found = []
    for number in range(2):
        out = tmp_path / str(number)
        spec = json.dumps({"kind": "lines", "shards": 2, "held_out": 0.1})
        command = ("instances", "--spec", spec, "--corpus", corpus, "--vocab", vocabulary)
        environment = {"PYTHONHASHSEED": str(number), "LC_ALL": "C", "PYTHONUTF8": "0"}
        more = ("--out", out, "--set", "processes=2")
        assert run_apart(*command, *more, **environment).code == 0
        found.append(contents(out))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["with space", "quote'\"", "文件夹", "-dash"])
def test_any_name_of_a_folder(tmp_path, vocabulary, name):
    folder = tmp_path / name
    folder.mkdir()
    path = written(folder / "c.txt", LINES)
    own = shutil.copy(vocabulary, folder / "v.txt")
    assert instances(folder / "out", own, path, shards=2).code == 0


def test_inputs_may_be_read_only(tmp_path, vocabulary, corpus, out):
    for path in (corpus, vocabulary):
        path.chmod(0o444)
        path.parent.chmod(0o555)
    before = contents(corpus.parent)
    assert instances(out, vocabulary, corpus).code == 0
    assert contents(corpus.parent) == before
