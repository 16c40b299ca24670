"""Data stages that are killed: nothing torn, and the next run ends with the undisturbed bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.text.manifest import shard_name
from tests.faults.kit import ROOT, command, review_lines, run, run_measured
from tests.pipeline.stages.data_command import contents, tree, write_vocab

SHARDS = 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A corpus of real reviews and a vocabulary."""
    folder = tmp_path_factory.mktemp("inputs")
    lines = review_lines(400)
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    characters = sorted({char for line in lines for char in line if "\u4e00" <= char <= "\u9fff"})
    return corpus, write_vocab(folder / "vocab.txt", *characters)


def instances(inputs, out, processes=1):
    corpus, vocab = inputs
    spec = json.dumps({"kind": "lines", "shards": SHARDS, "held_out": 0.1})
    return (
        *("instances", "--spec", spec, "--corpus", corpus, "--vocab", vocab),
        *("--out", out, "--set", f"processes={processes}"),
    )


def vocab(inputs, out, processes=1):
    command = ("vocab", "--corpus", inputs[0], "--out", out / "vocab.txt")
    return (*command, "--set", f"processes={processes}")


def fetch(inputs, out, processes=1):
    spec = json.dumps({"sources": [{"path": "corpus.txt"}], "duplicates": "drop"})
    return ("fetch", "--spec", spec, "--mirror", inputs[0].parent, "--out", out / "c.txt")


STAGES = {"instances": (instances, 3 * SHARDS + 1), "vocab": (vocab, 2), "fetch": (fetch, 2)}


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """What each stage writes when nobody disturbs it."""
    found = {}
    for name, (arguments, _) in STAGES.items():
        out = tmp_path_factory.mktemp("undisturbed") / name
        assert run(*arguments(inputs, out)).returncode == 0
        found[name] = contents(out)
    return found


def points(few):
    """Return (stage, passage, before or behind the rename); few of them, or all."""
    every = [
        (stage, number, point)
        for stage, (_, renames) in STAGES.items()
        for number in range(1, renames + 1)
        for point in ("renaming", "renamed")
    ]
    return [found for found in every if (found[1:] in {(1, "renaming"), (2, "renamed")}) == few]


def check_kill(inputs, undisturbed, out, stage, number, point):
    arguments = STAGES[stage][0](inputs, out)
    killed = run(*arguments, PIPELINE_CRASH_AT=f"{point}:{number}")
    assert killed.returncode == -signal.SIGKILL
    published = {name: data for name, data in contents(out).items() if not name.startswith(".")}
    assert published.items() <= undisturbed[stage].items()
    assert len(published) == number - (point == "renaming")
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert contents(out) == undisturbed[stage]


@pytest.mark.parametrize(("stage", "number", "point"), points(few=True))
def test_killed_at_a_rename(inputs, undisturbed, tmp_path, stage, number, point):
    check_kill(inputs, undisturbed, tmp_path / "out", stage, number, point)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "number", "point"), points(few=False))
def test_killed_at_any_rename(inputs, undisturbed, tmp_path, stage, number, point):
    check_kill(inputs, undisturbed, tmp_path / "out", stage, number, point)


@pytest.mark.parametrize("stage", ["instances"])
def test_a_killed_worker_stops_the_stage(inputs, undisturbed, tmp_path, stage):
    out = tmp_path / "out"
    arguments = instances(inputs, out, processes=2)
    killed = run(*arguments, PIPELINE_CRASH_AT="renamed:2")
    assert killed.returncode == 70
    assert killed.stderr.startswith("error: a worker process was killed by SIGKILL (peak ")
    assert not out.exists()
    assert run(*arguments).returncode == 0
    assert contents(out) == undisturbed[stage]


def test_killed_in_the_middle_of_the_work(inputs, tmp_path):
    """The parent dies once a shard is there; its workers die with it, and the shard is kept."""
    corpus, vocabulary = inputs
    large = tmp_path / "large.txt"
    large.write_bytes(corpus.read_bytes() * 200)
    out = tmp_path / "out"
    arguments = instances((large, vocabulary), out, processes=2)
    with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        first = out / shard_name(0).replace(".arrow", ".json")
        while not first.exists() and running.poll() is None:
            os.sched_yield()
        running.kill()
    assert first.exists() and not (out / "manifest.json").exists()
    before = first.stat().st_mtime_ns
    assert run(*arguments).returncode == 0
    assert first.stat().st_mtime_ns == before
    fresh = tmp_path / "fresh"
    assert run(*instances((large, vocabulary), fresh)).returncode == 0
    assert contents(fresh) == contents(out)


def test_interrupted_from_the_keyboard(inputs, tmp_path):
    """Control-C is an end like any other failure: nothing is left."""
    corpus, vocabulary = inputs
    large = tmp_path / "large.txt"
    large.write_bytes(corpus.read_bytes() * 200)
    out = tmp_path / "out"
    arguments = instances((large, vocabulary), out, processes=2)
    with subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        # A shell's background job ignores Control-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        while not list(out.glob(".*.tmp-*")) and running.poll() is None:
            os.sched_yield()
        running.send_signal(signal.SIGINT)
    assert running.returncode != 0
    assert tree(tmp_path) == ["large.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "sentences"])
def test_memory_does_not_grow_with_the_text(inputs, tmp_path, kind):
    """Below 300 MB for each process, for 20 MB of text and for 200 MB alike."""
    corpus, vocabulary = inputs
    text = corpus.read_bytes()
    if kind == "sentences":  # a document a line, a sentence a clause
        text = text.replace(b"\n", b"\n\n").replace("，".encode(), "，\n".encode())
    peaks = []
    for megabytes in (20, 200):
        large = tmp_path / f"{megabytes}.txt"
        with large.open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(text)):
                file.write(text)
        out = tmp_path / f"out_{megabytes}"
        spec = json.dumps({"kind": kind, "shards": 2, "held_out": 0.01})
        arguments = ("instances", "--spec", spec, "--corpus", large, "--vocab", vocabulary)
        done, peak = run_measured(*arguments, "--out", out, "--set", "processes=2")
        assert done.returncode == 0
        peaks.append(peak)
    assert max(peaks) < 300
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_an_endless_line_takes_no_memory(inputs, tmp_path, policy):
    """A12: 500 MB without a line end, refused with its length or cut, below 300 MB."""
    vocabulary = inputs[1]
    large, out = tmp_path / "large.txt", tmp_path / "out"
    with large.open("wb") as file:
        file.write("我\n".encode())
        for _ in range(500):
            file.write(b"x" * 1_000_000)
    spec = json.dumps({"kind": "lines", "bad_rows": policy})
    arguments = ("instances", "--spec", spec, "--corpus", large, "--vocab", vocabulary)
    done, peak = run_measured(*arguments, "--out", out)
    lines = done.stderr.splitlines()
    assert peak < 300
    if policy == "skip":
        assert done.returncode == 0, lines
        return
    limit = "at most 1048576, break it up, or let bad_rows: skip cut it"
    assert lines == [f"error: {large}:2: a line of 500000000 bytes; {limit}"]
    assert done.returncode == 65 and not out.exists()


def test_a_file_that_may_not_be_read(inputs, tmp_path):
    """As another user where this one may read everything."""
    corpus, _ = inputs
    secret = tmp_path / "secret.txt"
    secret.write_bytes(corpus.read_bytes())
    secret.chmod(0)
    code = (
        "import os, sys\n"
        "from pipeline.__main__ import main\n"
        "from pipeline.stages import vocab\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        f"sys.exit(main(['vocab', '--corpus', {str(secret)!r}, '--out', 'none/v.txt']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 74
    assert done.stderr == f"error: {secret}: Permission denied\n"
    assert not Path(ROOT / "none").exists()
