"""Kill a pre-training run anywhere: the same command ends with the undisturbed run's bytes.

A handful of kill points run in `make test`, all of them in `make test-all`. Steps redone are
counted: never more than one resume interval.
"""

import json
import random
import re
import subprocess
import time

import pytest

from tests.faults.kit import ROOT, SPEC, build_inputs, command, flip_bit, pretrain, weights

RESUME_STEPS = SPEC["optimization"]["resume_steps"]


def kill_points() -> list[str]:
    """Return seeded kill points `name:passage`; the run passes each name often enough."""
    draw = random.Random(7)
    ranks = [f"step-{draw.randrange(2)}:{draw.randrange(1, 13)}" for _ in range(8)]
    # A run publishes 6 points (two tensors files each end of a segment besides) and 3 records.
    writer = [
        f"{name}:{draw.randrange(1, limit)}"
        for name, limit in (("writing", 13), ("written", 13), ("renaming", 16), ("renamed", 16))
        for _ in range(3)
    ]
    return list(dict.fromkeys(ranks + writer))


POINTS = kill_points()
QUICK = {POINTS[0], POINTS[-1], POINTS[-5]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return build_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def digest(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    done = pretrain(inputs, out)
    assert done.returncode == 0, done.stderr
    return weights(out)


def last_step(out):
    log = out.with_name(out.name + ".log") / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def continued_after(stderr):
    found = re.findall(r"continues after step (\d+)", stderr)
    return int(found[0]) if found else None


def assert_recovers(inputs, out, digest, killed_at):
    """Run again; what is redone of the `killed_at` steps is one resume interval at most."""
    published = [int(path.stem.removeprefix("step_")) for path in out.glob("step_*.json")]
    again = pretrain(inputs, out, "--set", "ranks=2")
    assert again.returncode == 0, again.stderr
    assert_same(again, out, digest, killed_at, max(published, default=0))


def assert_same(again, out, digest, killed_at, published=0):
    assert weights(out) == digest
    assert not list(out.glob(".*.tmp-*"))
    start = continued_after(again.stderr) or published
    print(f"steps redone: {killed_at - start}")
    assert killed_at - start <= RESUME_STEPS


def test_there_are_enough_kill_points():
    """Of ranks and inside the writer; the launcher's, the controller's and data stages' besides."""
    assert len(POINTS) >= 20


@pytest.mark.parametrize(
    "point", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in POINTS]
)
def test_killed_rank_or_writer(inputs, digest, tmp_path, point):
    out = tmp_path / "run"
    killed = pretrain(inputs, out, "--set", "ranks=2", PIPELINE_CRASH_AT=point)
    assert killed.returncode == 75, killed.stderr
    assert "was killed by signal 9" in killed.stderr
    assert_recovers(inputs, out, digest, last_step(out))


@pytest.mark.parametrize("step", [3, pytest.param(6, marks=pytest.mark.slow),
                                  pytest.param(9, marks=pytest.mark.slow)])  # fmt: skip
def test_killed_launcher_takes_its_ranks_along(inputs, digest, tmp_path, step):
    out = tmp_path / "run"
    arguments = command("pretrain", "--spec", json.dumps(SPEC), "--instances", inputs.instances,
                        "--vocab", inputs.vocab, "--out", out, "--set", "ranks=2")  # fmt: skip
    launcher = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while last_step(out) < step and launcher.poll() is None:
        assert time.monotonic() < deadline
    launcher.kill()
    launcher.wait()
    published = max((int(p.stem.removeprefix("step_")) for p in out.glob("step_*.json")), default=0)
    killed_at = last_step(out)
    # The lock is free once the kernel has delivered the ranks' death: no orphan keeps it.
    while (again := pretrain(inputs, out, "--set", "ranks=2")).returncode == 73:
        assert time.monotonic() < deadline
    assert again.returncode == 0, again.stderr
    assert_same(again, out, digest, killed_at, published)


def test_kills_one_after_another_on_other_numbers_of_ranks(inputs, digest, tmp_path):
    out = tmp_path / "run"
    for ranks, point in ((4, "step-3:3"), (2, "step-1:4")):
        killed = pretrain(inputs, out, "--set", f"ranks={ranks}", PIPELINE_CRASH_AT=point)
        assert killed.returncode == 75, killed.stderr
    done = pretrain(inputs, out, "--set", "ranks=1")
    assert done.returncode == 0, done.stderr
    assert weights(out) == digest


def test_a_flipped_bit_in_the_newest_resume_point_costs_one_interval(inputs, digest, tmp_path):
    out = tmp_path / "run"
    assert pretrain(inputs, out, PIPELINE_CRASH_AT="step-0:12").returncode == -9
    points = sorted((tmp_path / "run.state").glob("*/*/step_*.safetensors"))
    flip_bit(points[-1], seed=3)
    again = pretrain(inputs, out)
    assert again.returncode == 0, again.stderr
    assert weights(out) == digest


def test_a_crash_loop_ends_after_three_attempts(inputs, tmp_path):
    out = tmp_path / "run"
    for _ in range(3):
        assert pretrain(inputs, out, PIPELINE_CRASH_AT="step-0:1").returncode == -9
    stuck = pretrain(inputs, out)
    assert stuck.returncode == 70, stuck.stderr
    assert "3 attempts from step 0 died" in stuck.stderr


def test_a_full_disk_stops_with_the_last_point_kept(inputs, digest, tmp_path):
    out = tmp_path / "run"
    limited = ["sh", "-c", 'ulimit -f 40; exec "$@"', "sh"]
    arguments = command("pretrain", "--spec", json.dumps(SPEC), "--instances", inputs.instances,
                        "--vocab", inputs.vocab, "--out", out)  # fmt: skip
    full = subprocess.run(
        [*limited, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert full.returncode == 74, full.stderr
    assert "file size limit reached" in full.stderr
    assert not list(out.glob("*"))
    assert_recovers(inputs, out, digest, last_step(out))


DRIFT = """
import sys, torch
from pipeline.training.loop import Learner
update = Learner.update
def drifting(self, step, *rest):
    sums = update(self, step, *rest)
    if self.ranks.rank == 1 and step == 2:
        weight = self.parameters[-1].data.view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    return sums
Learner.update = drifting
from pipeline.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_replicas_that_drift_are_stopped_and_nothing_is_published(inputs, tmp_path):
    out = tmp_path / "run"
    arguments = command("pretrain", "--spec", json.dumps(SPEC), "--instances", inputs.instances,
                        "--vocab", inputs.vocab, "--out", out, "--set", "ranks=2")  # fmt: skip
    patched = [arguments[0], "-c", DRIFT, *arguments[3:]]
    stopped = subprocess.run(
        patched, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert stopped.returncode == 76, stopped.stderr
    # One unit in the last place after the third update is seen at the next comparison.
    errors = [line for line in stopped.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: step 4: ranks hold different values, first in targets.lm.output.bias"]
    assert not list(out.glob("*"))
