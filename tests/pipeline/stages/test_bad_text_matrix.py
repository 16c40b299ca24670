"""Rows of parts A and B of the bad-input matrix that no other test has, for every stage they reach.

A: corpora, B: vocabularies. Each refusal is one line; nothing is left, the inputs are as before.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.text.vocabulary import SPECIAL_TOKENS
from tests.faults.kit import ROOT
from tests.pipeline.stages.data_command import (
    Outcome,
    contents,
    instances,
    run,
    tree,
    vocab,
    write_vocab,
)
from tests.pipeline.stages.test_instances import all_rows, ledger
from tests.pipeline.text.writing import written

HEAD = "".join(f"{token}\n" for token in SPECIAL_TOKENS)
STAGES = ("vocab", "instances")


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    (tmp_path / "v").mkdir()
    return write_vocab(tmp_path / "v" / "v.txt", *"我爱北京cafe", *(f"##{c}" for c in "cafe"))


@pytest.fixture
def attempt(tmp_path: Path, vocabulary: Path) -> Callable[..., Outcome]:
    """Run a stage that reads corpora into out/: attempt("vocab", corpus)."""

    def run_stage(stage: str, *corpora: Path) -> Outcome:
        if stage == "vocab":
            return vocab(tmp_path / "out", *corpora)
        return instances(tmp_path / "out", vocabulary, *corpora)

    return run_stage


def assert_refused(done: Outcome, code: int, line: str, folder: Path) -> None:
    """Assert the one line (without folder's name) and that no output has appeared."""
    shown = [text.replace(f"{folder}/", "") for text in done.lines]
    assert (done.code, shown) == (code, [f"error: {line}"])
    assert not (folder / "out").exists()


def arrow_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue().to_pybytes()


OTHER_KINDS = {
    "arrow": (arrow_bytes(), "an Arrow file"),
    "pickle": (b"\x80\x04\x95\x00", "a pickle"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip archive"),
    "zip": (b"PK\x03\x04\x00", "a zip archive or a spreadsheet"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"A13 {kind}") for kind in OTHER_KINDS])
def test_other_kinds_of_file(
    attempt: Callable[..., Outcome], tmp_path: Path, stage: str, kind: str
) -> None:
    content, shown = OTHER_KINDS[kind]
    path = written(tmp_path / "c.txt", content)
    line = f"c.txt: this is {shown}, found bytes {content[:4]!r}; give the text itself"
    assert_refused(attempt(stage, path), 65, line, tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_a14_no_regular_file(
    attempt: Callable[..., Outcome], tmp_path: Path, stage: str, kind: str
) -> None:
    path = tmp_path / "c.txt"
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    path = Path("/dev/zero") if kind == "device" else path
    shown = str(path).replace(f"{tmp_path}/", "")
    assert_refused(attempt(stage, path), 65, f"{shown}: not a regular file", tmp_path)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("change", ["grown", "replaced"])
def test_a15_a_file_that_changes_while_it_is_read(
    attempt: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    change: str,
) -> None:
    from pipeline.text.corpus import Corpus

    path = written(tmp_path / "c.txt", "我爱北京\n" * 10)
    other = written(tmp_path / "d.txt", "北京爱我\n" * (10 + (change == "grown")))
    iter_blocks = Corpus.iter_blocks

    def changing(self: Corpus, *arguments: object, **options: object):
        for block in iter_blocks(self, *arguments, **options):
            if other.exists():
                other.replace(path)
            yield block

    monkeypatch.setattr(Corpus, "iter_blocks", changing)
    sizes = (130, 143 if change == "grown" else 130)
    line = f"c.txt: changed while it was read, {sizes[0]} bytes before, {sizes[1]} now"
    assert_refused(attempt(stage, path), 76, line, tmp_path)


UNREADABLE = """
import os, sys
from pipeline.__main__ import main
from pipeline.stages import instances, vocab
import pipeline.instances.lines
if os.geteuid() == 0: os.seteuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def test_a16_a_corpus_that_may_not_be_read() -> None:
    """As another user where this one may read everything; vocab is tested with the kills."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o777)
        path = written(folder / "c.txt", "我\n")
        path.chmod(0)
        arguments = ["instances", "--spec", '{"kind": "lines"}', "--corpus", path]
        arguments += ["--vocab", write_vocab(folder / "v.txt", "我"), "--out", folder / "out"]
        done = subprocess.run(
            [sys.executable, "-c", UNREADABLE, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stderr.splitlines())
        assert_refused(outcome, 74, "c.txt: Permission denied", folder)


@pytest.mark.parametrize("stage", STAGES)
def test_a26_one_file_twice(attempt: Callable[..., Outcome], tmp_path: Path, stage: str) -> None:
    path = written(tmp_path / "c.txt", "我\n")
    (tmp_path / "link.txt").symlink_to(path)
    line = "--corpus: c.txt and link.txt are one file; give it once"
    assert_refused(attempt(stage, path, tmp_path / "link.txt"), 78, line, tmp_path)


@pytest.mark.parametrize("ends", ["\r\n", "\r", "mixed"])
def test_a9_line_ends_change_nothing(tmp_path: Path, vocabulary: Path, ends: str) -> None:
    lines = [f"我爱{'北京' * (number % 5)}" for number in range(60)]
    found = []
    for name, cycle in (
        ("lf", ["\n"]),
        ("other", ["\n", "\r", "\r\n"] if ends == "mixed" else [ends]),
    ):
        text = "".join(line + cycle[n % len(cycle)] for n, line in enumerate(lines))
        path = written(tmp_path / f"{name}.txt", text)
        out = tmp_path / name
        assert vocab(out, path).code == 0
        assert instances(out, vocabulary, path, shards=2, held_out=0.2).code == 0
        found.append({**contents(out, "*.arrow"), **contents(out, "vocab.txt")})
    assert len(found[0]) == 5 and found[0] == found[1]


def test_a10_other_separators_end_no_line(tmp_path: Path, vocabulary: Path) -> None:
    path = written(tmp_path / "c.txt", "我\u2028爱\x85北\x0b京\x0c我\x1c爱\u2029北\n京\n")
    assert instances(tmp_path / "out", vocabulary, path).code == 0
    books = ledger(tmp_path / "out")
    assert (books["lines"], books["documents_in"], books["documents_out"]) == (2, 2, 2)


def test_a11_the_last_line_needs_no_end(tmp_path: Path, vocabulary: Path) -> None:
    for name, text in (("with", "我爱\n北京\n"), ("without", "我爱\n北京")):
        path = written(tmp_path / f"{name}.txt", text)
        assert instances(tmp_path / name, vocabulary, path).code == 0
    one, two = (contents(tmp_path / name, "*.arrow") for name in ("with", "without"))
    assert one == two


def test_a22_composed_and_decomposed_text_make_the_same_rows(
    tmp_path: Path, vocabulary: Path
) -> None:
    for name, text in (("nfc", "caf\u00e9 我\n"), ("nfd", "cafe\u0301 我\n")):
        path = written(tmp_path / f"{name}.txt", text)
        assert instances(tmp_path / name, vocabulary, path).code == 0
    assert all_rows(tmp_path / "nfc") == all_rows(tmp_path / "nfd")
    assert len(all_rows(tmp_path / "nfc")[0]) == 5


# Vocabularies: content, exit code, lines; F stands for the file.

UNCLEAR = "holds a blank at an end or a tab; it is unclear what the token is"
PLAIN = "a vocabulary of plain tokens, one a line, is needed"
VOCABULARIES = [
    pytest.param("", 65, ["F: empty; one token a line is needed"], id="B1"),
    pytest.param(
        HEAD + "我\na\x1b\na\x1b\n",
        65,
        ["F:8: token 'a\\x1b' already stands in line 7"],
        id="B2",
    ),
    pytest.param(
        HEAD + "\n我\n",
        65,
        [
            "F:6: blank line; every line is a token, and leaving one out would shift the ids "
            "after it"
        ],
        id="B3",
    ),
    pytest.param(
        "[PAD]\n[UNK]\n[SEP]\n我\n",
        65,
        [
            "F: no [CLS]; it starts the rows of targets nsp, cls and of every task",
            "F: no [MASK]; target mlm hides words behind it",
        ],
        id="B4",
    ),
    pytest.param(HEAD + "我 \n", 65, [f"F:6: '我 ' {UNCLEAR}"], id="B7 trailing blank"),
    pytest.param(HEAD + "我\n \n", 65, [f"F:7: ' ' {UNCLEAR}"], id="B7 blank token"),
    pytest.param(
        "#version: 0.2\n我 爱\n", 65, [f"F: a list of byte-pair merges; {PLAIN}"], id="B11 merges"
    ),
    pytest.param(
        "<unk>\t0\n\u2581我\t-3\n",
        65,
        [f"F: a SentencePiece vocabulary with scores; {PLAIN}"],
        id="B11 scores",
    ),
    pytest.param(
        b"\n\x0e\n\x05<unk>\x15\0\0", 65, [f"F: a SentencePiece model; {PLAIN}"], id="B11 model"
    ),
    pytest.param(
        '{"a": ' + "[" * 9999 + "]" * 9999 + "}",
        65,
        [f"F: a JSON file (tokenizer.json or vocab.json); {PLAIN}"],
        id="B15 deep",
    ),
    pytest.param(HEAD + "x" * 2000 + "\n", 65, ["F: 2032 bytes; at most 1000"], id="B15 large"),
    pytest.param(HEAD.encode() + b"\xff\n", 65, ["F:6: not UTF-8 at byte 31"], id="B not UTF-8"),
]


@pytest.mark.parametrize("stage", ["import", "instances"])
@pytest.mark.parametrize(("content", "code", "lines"), VOCABULARIES)
def test_vocabularies(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    content: str | bytes,
    code: int,
    lines: list[str],
) -> None:
    if "at most" in lines[0]:
        monkeypatch.setattr("pipeline.text.vocabulary.MAX_VOCAB_BYTES", 1000)
    path = written(tmp_path / "F", content)
    corpus = written(tmp_path / "c.txt", "我爱北京\n")
    before = {**contents(tmp_path)}
    if stage == "import":
        done = run("vocab", "--import", path, "--out", tmp_path / "out" / "vocab.txt")
    else:
        done = instances(tmp_path / "out", path, corpus)
    shown = [line.replace(f"{tmp_path}/", "") for line in done.lines]
    assert (done.code, shown) == (code, [f"error: {line}" for line in lines])
    assert contents(tmp_path) == before
    assert tree(tmp_path) == ["F", "c.txt"]


def test_b5_and_b8_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path / "p.txt", "\ufeff我\n" + HEAD)
    done = run("vocab", "--import", path, "--out", tmp_path / "out" / "vocab.txt")
    assert (done.code, done.lines) == (
        0,
        [
            f"note: {path}: byte order mark dropped",
            f"note: {tmp_path / 'out' / 'vocab.txt'}: [PAD] has id 1, not 0",
        ],
    )
