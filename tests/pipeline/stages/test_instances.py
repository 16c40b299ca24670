"""The stage instances through the command line: bytes, books, jobs, and what is refused."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.artifacts import read_json_artifact
from pipeline.text.shards import InstanceSet
from tests.pipeline.stages.data_command import (
    contents,
    instances,
    refused,
    tree,
    write_vocab,
)
from tests.pipeline.text.writing import written

LINES = "".join(f"我爱{'北京' * (number % 9)}，{number}\n" for number in range(200))
DOCUMENTS = "\n".join(f"我{number}爱\n北京{number}\n，{number}\n" for number in range(60))
LABELLED = "".join(f"{number % 3}\t我{number}\n" for number in range(90))
PARALLEL = "".join(f"我{number}\t爱北京{number}\n" for number in range(90))
KINDS = {
    "lines": LINES, "sentences": DOCUMENTS, "labelled": LABELLED, "parallel": PARALLEL,
}  # fmt: skip


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


def manifest(out):
    return read_json_artifact(out / "manifest.json", "instances")


def ledger(out):
    return manifest(out)["ledger"]


def all_rows(out):
    """Return the texts of all rows, held out ones too, sorted."""
    opened = InstanceSet.open(out)
    found = []
    for part in filter(None, (opened, opened.held_out)):
        ids = part.rows(np.arange(part.num_rows)).ragged("token_ids")
        found += [tuple(row.tolist()) for row in np.split(ids.values, ids.offsets[1:-1])]
    return sorted(found)


def test_a_set_is_opened_and_its_books_balance(tmp_path, vocabulary, corpus, out):
    outcome = instances(out, vocabulary, corpus, shards=3, held_out=0.1)
    assert outcome.code == 0
    opened = InstanceSet.open(out)
    assert opened.kind == "lines" and opened.vocabulary_digest == manifest(out)["vocabulary"]
    books = ledger(out)
    assert books["documents_in"] == books["documents_out"] + books["held_out"] == 200
    assert books["rows"] == opened.num_rows + opened.held_out.num_rows == 200
    assert 5 < books["held_out"] < 40
    assert books["tokens"] == opened.num_tokens + opened.held_out.num_tokens
    assert books["unknown"] == 200  # the comma
    assert books["bytes"] == corpus.stat().st_size and books["characters"] == len(LINES)
    names = {f"{part}_{n:05d}.arrow" for part in ("shard", "held_out") for n in range(3)}
    records = {f"shard_{n:05d}.json" for n in range(3)}
    assert set(tree(out)) == names | records | {"manifest.json"}
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in out.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_for_any_processes_and_jobs(tmp_path, vocabulary, kind):
    path = written(tmp_path / "c.txt", KINDS[kind])
    spec = {"kind": kind, "shards": 4, "held_out": 0.2, "seq_length": 12}
    found = []
    for processes in (1, 2, 3, 8):
        out = tmp_path / f"p{processes}"
        more = ("--set", f"processes={processes}")
        assert instances(out, vocabulary, path, more=more, **spec).code == 0
        found.append(contents(out))
    for jobs in (["0,1,2,3"], ["3,1", "0", "2"], ["2", "0", "3", "1"]):
        out = tmp_path / f"jobs_{len(jobs)}"
        for shards in jobs:
            assert instances(out, vocabulary, path, more=("--shards", shards), **spec).code == 0
            assert not (out / "manifest.json").exists()
        assert instances(out, vocabulary, path, more=("--join",), **spec).code == 0
        found.append(contents(out))
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("kind", ["lines", "labelled", "parallel"])
def test_the_number_of_shards_moves_rows_and_loses_none(tmp_path, vocabulary, kind):
    path = written(tmp_path / "c.txt", KINDS[kind])
    for shards in (1, 7):
        instances(tmp_path / str(shards), vocabulary, path, kind=kind, shards=shards, held_out=0.2)
    assert all_rows(tmp_path / "1") == all_rows(tmp_path / "7")


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["", " ", "\u3000", "我爱北京", "\t", "[MASK] 我", "\u200b", "x" * 200]),
        st.text("我爱 a1\u2028\u3000\t", max_size=8),
    ),
    max_size=30,
)


@given(TEXTS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(sorted(KINDS)), st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_goes_in_comes_out_or_is_named(tmp_path_factory, vocabulary, lines, end, kind, data):
    folder = tmp_path_factory.mktemp("i")
    path = written(folder / "c.txt", end.join(lines) + data.draw(st.sampled_from(["", end])))
    shards = data.draw(st.integers(1, 5))
    options = {"kind": kind, "bad_rows": "skip", "seq_length": 8, "held_out": 0.3}
    outcome = instances(folder / "o", vocabulary, path, shards=shards, **options)
    if outcome.code:
        assert outcome.code == 65 and not (folder / "o").exists()
        assert any(words in outcome.lines[-1] for words in ("documents", "every line has label"))
        return
    books = ledger(folder / "o")
    gone = books["documents_out"] + books["held_out"] + sum(books["dropped"].values())
    assert books["documents_in"] == gone
    full = [line for line in lines if line.strip(" \t")]
    if kind != "sentences":
        assert books["documents_in"] == len(full)
        assert books["lines"] - books["blank_lines"] == len(full)
    else:
        lost = sum(books.get("dropped_sentences", {}).values())
        assert books["sentences_in"] == books["sentences_out"] + lost == len(full)
    assert InstanceSet.open(folder / "o").num_rows == manifest(folder / "o")["rows"]


def test_odd_things_are_counted(tmp_path, vocabulary, out):
    path = written(tmp_path / "c.txt", "\ufeff我[MASK]\u200b[SEP]爱\n\n\u3000\n爱[UNK\u202e\n")
    outcome = instances(out, vocabulary, path)
    assert outcome.lines[-1] == "note: 1 byte order mark dropped"
    books = ledger(out)
    assert (books["special_token_texts"], books["invisible_characters"]) == (2, 2)
    assert books["dropped"] == {"no tokens": 1} and books["blank_lines"] == 1


def test_line_ends_do_not_change_the_shards(tmp_path, vocabulary, corpus):
    other = written(tmp_path / "crlf.txt", LINES.replace("\n", "\r\n"))
    for name, path in (("lf", corpus), ("crlf", other)):
        assert instances(tmp_path / name, vocabulary, path, held_out=0.1).code == 0
    for name in ("shard_00000.arrow", "held_out_00000.arrow"):
        assert (tmp_path / "lf" / name).read_bytes() == (tmp_path / "crlf" / name).read_bytes()


def test_more_shards_than_documents(tmp_path, vocabulary, out):
    path = written(tmp_path / "c.txt", "我\n爱\n")
    assert instances(out, vocabulary, path, shards=9, more=("--set", "processes=8")).code == 0
    assert len(all_rows(out)) == 2
    assert sum(entry["rows"] == 0 for entry in manifest(out)["shards"]) >= 7


def test_corpora_are_one_after_another(tmp_path, vocabulary):
    whole = written(tmp_path / "c.txt", LINES)
    half = LINES.index("100\n") + 4
    parts = [
        written(tmp_path / name, text) for name, text in (("a", LINES[:half]), ("b", LINES[half:]))
    ]
    for name, paths in (("one", [whole]), ("two", parts)):
        assert instances(tmp_path / name, vocabulary, *paths, shards=3).code == 0
    for shard in range(3):
        name = f"shard_0000{shard}.arrow"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_instances_are_smaller_than_their_text(tmp_path, vocabulary, out):
    path = written(tmp_path / "c.txt", "".join("我爱北京" * 10 + "\n" for _ in range(5000)))
    assert instances(out, vocabulary, path, seq_length=64).code == 0
    assert sum(path.stat().st_size for path in out.glob("*.arrow")) < path.stat().st_size


# What is kept and what is built again


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.arrow")}


def test_shards_that_fit_are_kept(vocabulary, corpus, out):
    instances(out, vocabulary, corpus, shards=3)
    before, whole = times(out), contents(out)
    (out / "shard_00001.arrow").chmod(0o644)
    written(out / "shard_00001.arrow", b"damaged")
    (out / "shard_00002.json").unlink()
    assert instances(out, vocabulary, corpus, shards=3).code == 0
    after = times(out)
    kept = {name for name in before if before[name] == after[name]}
    assert kept == {"shard_00000.arrow", "held_out_00000.arrow"}
    assert contents(out) == whole


@pytest.mark.parametrize("change", ["text", "settings", "vocabulary"])
def test_shards_of_other_inputs_are_built_again(tmp_path, vocabulary, corpus, out, change):
    instances(out, vocabulary, corpus, shards=2)
    before = times(out)
    if change == "text":
        written(corpus, LINES.replace("0\n", "1\n"))
    if change == "vocabulary":
        vocabulary = write_vocab(tmp_path / "w.txt", *"我爱")
    more = {"seq_length": 9} if change == "settings" else {}
    assert instances(out, vocabulary, corpus, shards=2, **more).code == 0
    assert not set(before.items()) & set(times(out).items())
    fresh = tmp_path / "fresh"
    instances(fresh, vocabulary, corpus, shards=2, **more)
    assert contents(fresh) == contents(out)


def test_a_limit_on_unknown_tokens_is_no_reason_to_build_again(vocabulary, corpus, out):
    instances(out, vocabulary, corpus)
    before = times(out)
    assert instances(out, vocabulary, corpus, max_unknown=0.5).code == 0
    assert times(out) == before


def test_leftovers_of_killed_runs_are_removed(vocabulary, corpus, out):
    out.mkdir()
    written(out / ".shard_00000.arrow.tmp-4194305-abcd", "half")
    assert instances(out, vocabulary, corpus).code == 0
    assert not [name for name in tree(out) if name.startswith(".")]


# Joining jobs


def build_jobs(out, vocabulary, corpus, *shards, **spec):
    for shard in shards:
        done = instances(out, vocabulary, corpus, more=("--shards", str(shard)), shards=3, **spec)
        assert done.code == 0


def join(out, vocabulary, corpus, **spec):
    return instances(out, vocabulary, corpus, more=("--join",), **{"shards": 3, **spec})


def test_a_shard_that_is_missing_stops_the_join(vocabulary, corpus, out):
    build_jobs(out, vocabulary, corpus, 0, 2)
    refused(join(out, vocabulary, corpus), 66, "shard_00001.json: no such file")


def test_a_shard_of_other_settings_stops_the_join(vocabulary, corpus, out):
    build_jobs(out, vocabulary, corpus, 0, 1, 2)
    message = "shard_00000.json: made for something else: settings.seq_length: 128 -> 64"
    refused(join(out, vocabulary, corpus, seq_length=64), 78, message)
    assert not (out / "manifest.json").exists()


def test_a_shard_of_another_vocabulary_stops_the_join(tmp_path, vocabulary, corpus, out):
    build_jobs(out, vocabulary, corpus, 0, 1, 2)
    other = write_vocab(tmp_path / "w.txt", "我")
    refused(join(out, other, corpus), 78, "inputs.vocabulary: ")


def test_a_corpus_that_changed_between_jobs_stops_the_join(vocabulary, corpus, out):
    build_jobs(out, vocabulary, corpus, 0, 1)
    written(corpus, LINES + "我\n")
    build_jobs(out, vocabulary, corpus, 2)
    refused(join(out, vocabulary, corpus), 78, "corpus_bytes: ")


def test_a_damaged_shard_stops_the_join(vocabulary, corpus, out):
    build_jobs(out, vocabulary, corpus, 0, 1, 2)
    path = out / "shard_00001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    refused(join(out, vocabulary, corpus), 76, "shard_00001.arrow: digest ")


def test_an_edited_record_stops_the_join(vocabulary, corpus, out):
    build_jobs(out, vocabulary, corpus, 0, 1, 2)
    path = out / "shard_00001.json"
    text = path.read_text(encoding="utf-8")
    path.chmod(0o644)
    written(path, text.replace('"documents_in": ', '"documents_in": 1'))
    refused(join(out, vocabulary, corpus), 76, "edited or damaged")


@pytest.mark.parametrize("shards", ["3", "0,x", "", "-1", "0,,1"])
def test_shards_that_there_are_not(vocabulary, corpus, out, shards):
    outcome = instances(out, vocabulary, corpus, more=(f"--shards={shards}",), shards=3)
    refused(outcome, 64, f"--shards {shards}: expected numbers in 0..2 joined by commas")


def test_shards_and_join_exclude_each_other(vocabulary, corpus, out):
    outcome = instances(out, vocabulary, corpus, more=("--shards", "0", "--join"))
    refused(outcome, 64, "not allowed with argument")
