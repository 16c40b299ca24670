"""The command probe: what users get wrong, told in one line, with nothing left behind."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from pipeline.__main__ import main
from pipeline.artifacts import digest_file, read_json_artifact
from pipeline.text.vocabulary import read_vocabulary
from tests.faults.kit import flip_bit
from tests.pipeline.labelled import run
from tests.pipeline.probes.tiny import CAUSAL, CHARACTERS, write_model

MLM = {"target": "mlm"}
LM = {"target": "lm", "encoder": CAUSAL}


@pytest.fixture
def folder(tmp_path):
    """A folder with a model, its vocabulary, and a text to read."""
    write_model(tmp_path)
    (tmp_path / "in.txt").write_text("我[MASK]书\n", encoding="utf-8")
    return tmp_path


def probe(folder, name, *more, stdin=b"", model="model.safetensors"):
    given = ("--model", folder / model, "--vocab", folder / "vocab.txt")
    return run("probe", name, *given, *more, stdin=stdin)


def refused(folder, code, line, name, *more, **given):
    """Check exit code and the one line, and that no file has appeared."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    outcome = probe(folder, name, *more, "--out", folder / "sub" / "out.arrow", **given)
    assert (outcome.code, outcome.errors) == (code, [f"error: {line}"])
    assert "Traceback" not in outcome.err and outcome.out == ""
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "sub"}
    assert after == before and not list(folder.glob("sub/*"))


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# What works ---------------------------------------------------------------------------------------


def test_rows_as_tsv_or_json_lines_from_a_file_or_a_pipe(folder):
    text = (folder / "in.txt").read_bytes()
    piped = probe(folder, "cloze", "--set", "top=2", stdin=text)
    named = probe(folder, "cloze", "--set", "top=2", "--in", folder / "in.txt")
    dashed = probe(folder, "cloze", "--set", "top=2", "--in", "-", "--out", "-", stdin=text)
    assert piped.code == 0 and piped.out == named.out == dashed.out
    header, row = (line.split("\t") for line in piped.out.splitlines())
    assert header == ["line", "mask", "text", "predictions"]
    lines = probe(folder, "cloze", "--set", "top=2", "--format", "jsonl", stdin=text)
    value = json.loads(lines.out)
    assert value["predictions"] == json.loads(row[3]) and len(value["predictions"]) == 2
    probe(folder, "cloze", "--set", "top=2", "--out", folder / "out.jsonl", stdin=text)
    assert (folder / "out.jsonl").read_text(encoding="utf-8") == lines.out
    assert piped.err.endswith("probe cloze: lines 1, skipped 0, gaps 1\n")


def test_lines_given_inline_are_those_of_a_file(folder):
    source = write(folder, "words.txt", "我\n看\n书\n")
    lines = ("--line", "我", "--line=看", "--line", "书")
    inline = probe(folder, "neighbours", *lines, "--set", "top=2", "--books", folder / "b.json")
    assert inline.code == 0, inline.err
    assert inline.out == probe(folder, "neighbours", "--in", source, "--set", "top=2").out
    stamp = read_json_artifact(folder / "b.json", "probe")["stamp"]
    assert stamp["settings"]["lines"] == ["我", "看", "书"] and stamp["inputs"]["in"] is None
    sentence = probe(folder, "neighbours", "--line=-我看书\t书", "--set", "context=true")
    assert sentence.code == 0 and "-我看书" in sentence.out


def test_books_state_the_digest_of_the_output(folder):
    for name, out in (("cloze", "rows.jsonl"), ("features", "rows.arrow")):
        given = ("--line", "我[MASK]", "--out", folder / out, "--books", folder / "rows.json")
        assert probe(folder, name, *given).code == 0
        record = read_json_artifact(folder / "rows.json", "probe")
        assert record["output"] == digest_file(folder / out)
    assert probe(folder, "cloze", "--line", "我[MASK]", "--books", folder / "b.json").code == 0
    assert read_json_artifact(folder / "b.json", "probe")["output"] is None


@pytest.mark.parametrize("name", ["rows.arrow", "rows.npy"])
def test_features_can_be_verified(folder, name):
    given = ("features", "--line", "我看书", "--out", folder / "f" / name)
    assert probe(folder, *given).code == 0
    alone = run("verify", folder / "f", folder / "model.safetensors")
    state = "no digest  output of probe" if name.endswith("arrow") else "unknown    unknown kind"
    assert alone.code == 0 and state in alone.out
    assert probe(folder, *given, "--books", folder / "f" / "rows.json").code == 0
    found = run("verify", folder / "f")
    assert found.code == 0 and "whole      output of probe" in found.out
    flip_bit(folder / "f" / name, 3)
    assert run("verify", folder / "f").code == 76


def test_equal_commands_write_equal_bytes(folder):
    for name in ("a.arrow", "b.arrow"):
        assert (
            probe(folder, "features", "--in", folder / "in.txt", "--out", folder / name).code == 0
        )
    assert (folder / "a.arrow").read_bytes() == (folder / "b.arrow").read_bytes()


def test_books_are_stamped_without_paths(folder):
    text = "".join(f"{CHARACTERS[n : n + 4]}\n" for n in range(20))
    source, corpus = write(folder, "text.txt", text), write(folder, "corpus.txt", text)
    options = ("--set", "mask=random", "--set", f"corpus={corpus}", "--books", folder / "b.json")
    outcome = probe(folder, "cloze", "--in", source, *options)
    record = read_json_artifact(folder / "b.json", "probe")
    assert record["books"]["gaps"] == 20 and 0 <= record["books"]["unigram_hit_rate"] <= 1
    assert f"hit_rate {record['books']['hit_rate']:.4g}" in outcome.err
    assert str(folder) not in json.dumps(record)
    assert record["stamp"]["inputs"]["corpus"] == record["stamp"]["inputs"]["in"]


def test_a_directory_brings_its_vocabulary(folder):
    outcome = run("probe", "cloze", "--model", folder, stdin="我[MASK]".encode())
    assert outcome.code == 0 and outcome.out.count("\n") == 2


def test_features_stream_through_a_pipe(folder):
    command = [sys.executable, "-m", "pipeline", "probe", "features", "--model", folder]
    done = subprocess.run([*command], input="我看书\n\n大\n".encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    table = pa.ipc.open_stream(done.stdout).read_all()
    assert [value is None for value in table["features"].to_pylist()] == [False, True, False]
    assert done.stderr.decode() == "probe features: lines 3, without tokens 1, cut 0\n"


def test_help_shows_the_options_of_the_probe(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["probe", "generate", "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Continue prompts with a language model." in shown
    assert "\n--in: prompts, one a line\n" in shown
    assert "\n  repetition_penalty (default 1.0)\n      Makes tokens of the text so far" in shown


def test_generation_from_the_command_line(folder):
    write_model(folder, **LM)
    outcome = probe(folder, "generate", "--set", "new_tokens=4", stdin="我看\n大\n".encode())
    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert rows[0] == ["line", "sample", "prompt", "continuation", "tokens", "end"]
    assert [row[2] for row in rows[1:]] == ["我看", "大"]


def test_fine_tuned_models_are_probed_too(work):
    folder = work("classify")
    source = write(folder, "in.txt", "很好\n")
    outcome = probe(folder, "features", "--in", source, "--out", folder / "f.arrow")
    assert outcome.code == 0, outcome.err
    tokens = pa.ipc.open_file(folder / "f.arrow").read_all()["tokens"][0].as_py()
    assert tokens == ["[CLS]", "很", "好", "[SEP]"], "as in fine-tuning"
    line = f"{folder}/model.safetensors: has no target mlm, found none"
    refused(folder, 78, line, "cloze", "--in", source)


def test_a_fine_tuned_model_adapted_to_its_task_scores_the_same(work):
    folder = work("classify")
    old = read_vocabulary(folder / "vocab.txt").tokens
    wanted = set((folder / "dev.tsv").read_text(encoding="utf-8").lower())
    words = [token for token in reversed(old[5:]) if token in wanted]
    assert len(words) < len(old) - 5
    new = write(folder, "new.txt", "".join(f"{t}\n" for t in (*old[:5], *words, "##新")))
    adapted = probe(folder, "vocabulary", "--in", new, "--out", folder / "adapted")
    assert adapted.code == 0, adapted.err
    given = ("--data", folder / "dev.tsv", "--out")
    before = ("--model", folder / "model.safetensors", "--vocab", folder / "vocab.txt")
    assert run("evaluate", *before, *given, folder / "before.json").code == 0
    assert run("evaluate", "--model", folder / "adapted", *given, folder / "after.json").code == 0
    first, second = (read_json_artifact(folder / f"{n}.json") for n in ("before", "after"))
    assert first["metrics"] == second["metrics"] and first["confusion"] == second["confusion"]


# What does not ------------------------------------------------------------------------------------


def test_a_missing_model(folder):
    missing = folder / "none.safetensors"
    line = f"{missing}: no such model; give a .safetensors file or a model directory"
    refused(folder, 66, line, "cloze", model="none.safetensors")


def test_a_missing_input(folder):
    refused(folder, 66, f"{folder}/no.txt: no such file", "cloze", "--in", folder / "no.txt")


@pytest.mark.parametrize("name", ["embeddings", "inspect"])
def test_an_input_that_nobody_reads(folder, name):
    line = f"--in {folder}/in.txt: {name} reads nothing but the model"
    refused(folder, 64, line, name, "--in", folder / "in.txt")


def test_lines_that_nobody_reads_or_that_are_several(folder):
    refused(folder, 64, "--line: inspect reads nothing but the model", "inspect", "--line", "我")
    source = folder / "in.txt"
    both = ("--in", source, "--line", "我[MASK]")
    refused(folder, 64, f"--in {source} and --line: give one of them", "cloze", *both)
    broken = ("--line", "我[MASK]\n书[MASK]")
    line = "--line: a line break in it; give --line for each line"
    refused(folder, 64, line, "cloze", *broken)


def test_an_inline_word_that_is_no_token(folder):
    line = "--line:2: '我们大家' is not one token of the vocabulary"
    refused(folder, 65, line, "neighbours", "--line", "我", "--line", "我们大家")


def test_an_inline_line_that_is_not_utf8(folder):
    outcome = probe(folder, "cloze", "--line", b"\xce\xd2[MASK]".decode("utf-8", "surrogateescape"))
    assert outcome.code == 65 and outcome.errors[0].startswith("error: --line:1: not UTF-8")


@pytest.mark.parametrize(
    ("model", "name", "wanted", "found"),
    [(MLM, "generate", "lm", "mlm"), (LM, "cloze", "mlm", "lm")],
)
def test_a_model_without_the_target(folder, model, name, wanted, found):
    write_model(folder, **model)
    line = f"{folder}/model.safetensors: has no target {wanted}, found {found}"
    refused(folder, 78, line, name, stdin="我[MASK]".encode())


def test_another_vocabulary(folder):
    vocab = folder / "vocab.txt"
    vocab.write_bytes(vocab.read_bytes() + "新\n".encode())
    outcome = probe(folder, "inspect")
    assert outcome.code == 78 and len(outcome.errors) == 1
    assert "pass the vocabulary it was made with" in outcome.errors[0]


def test_no_model_and_no_vocabulary(folder):
    outcome = run("probe", "cloze", "--vocab", folder / "vocab.txt")
    assert (outcome.code, outcome.errors) == (
        64,
        ["error: --model is missing; give a .safetensors file or a model directory"],
    )
    outcome = run("probe", "cloze", "--model", folder / "model.safetensors")
    assert outcome.code == 64 and "--vocab is missing" in outcome.errors[0]


def test_a_damaged_model(folder):
    path = folder / "model.safetensors"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    outcome = probe(folder, "inspect")
    assert outcome.code == 76 and "damaged, build it again" in outcome.errors[0]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("我[MASK]书\n我看书\n", "2: no [MASK] in it; write it where a token is to be guessed, or "
         "use mask=random"),
        ("[MASK]\n" + "我" * 32 + "[MASK]\n", "2: 33 tokens; the model has positions for 32, "
         "shorten the text"),
        ("我[MASK]\n".encode("gb18030"), "1: not UTF-8 at byte 0, found b'\\xce\\xd2[M' (invalid "
         "continuation byte); perhaps gb18030, save it as UTF-8"),
        ("我[MASK]\0\n", "1: a NUL byte; is this a text file?"),
        ("我[MASK]\n".encode("utf-16"), " this is UTF-16 text, found bytes b'\\xff\\xfe\\x11b'; "
         "save it as UTF-8"),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_read(folder, data, problem):
    source = write(folder, "bad.txt", data)
    refused(folder, 65, f"{source}:{problem}", "cloze", "--in", source)


def test_bad_lines_far_into_the_text_leave_nothing_either(folder):
    source = write(folder, "bad.txt", "我[MASK]\n" * 2000 + "我\n")
    problem = "no [MASK] in it; write it where a token is to be guessed, or use mask=random"
    refused(folder, 65, f"{source}:2001: {problem}", "cloze", "--in", source)


@pytest.mark.parametrize(
    ("name", "option", "problem"),
    [
        ("cloze", "topp=3", "--spec.topp: unknown key; did you mean 'top'? known: corpus, mask, "
         "seed, special_tokens, top"),
        ("cloze", "top=0", "--spec.top: input should be greater than or equal to 1, found '0'"),
        ("generate", "top_p=0", "--spec.top_p: input should be greater than 0, found '0'"),
        ("generate", "temperature=-1", "--spec.temperature: input should be greater than or equal "
         "to 0, found '-1'"),
        ("features", "pooling=sum", "--spec.pooling: input should be 'first', 'mean', 'max' or "
         "'last', or input should be 'none', found 'sum'"),
        ("embeddings", "top=3", "--spec.top: unknown key; see config/README.md"),
    ],
)  # fmt: skip
def test_wrong_options(folder, name, option, problem):
    refused(folder, 78, problem, name, "--set", option)


def test_a_layer_that_the_model_has_not(folder):
    line = "layer: 7; the model has layers 0 (embedding) to 2"
    refused(folder, 78, line, "features", "--set", "layer=7")


def test_words_that_are_no_tokens(folder):
    source = write(folder, "words.txt", "我\n我们大家\n")
    line = f"{source}:2: '我们大家' is not one token of the vocabulary"
    refused(folder, 65, line, "neighbours", "--in", source)


def test_a_probe_that_does_not_exist(folder):
    outcome = run("probe", "clozee", "--model", folder)
    assert outcome.code == 64 and len(outcome.errors) == 1
    assert "invalid choice: 'clozee'" in outcome.errors[0] and "'cloze'" in outcome.errors[0]
    assert run("probe").code == 64


def test_npy_needs_a_file(folder):
    outcome = probe(folder, "features", "--in", folder / "in.txt", "--out", folder / "out.csv")
    assert outcome.code == 64 and outcome.errors == [
        f"error: --out {folder}/out.csv: end the name in .arrow or .npy"
    ]


def test_books_that_cannot_be_written_take_the_output_back(folder):
    (folder / "file").write_bytes(b"")
    outcome = probe(
        *(folder, "embeddings", "--out", folder / "out.txt", "--books", folder / "file" / "b.json")
    )
    assert outcome.code == 74 and not (folder / "out.txt").exists()
