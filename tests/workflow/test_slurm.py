"""The workflow on a real Slurm of two nodes: ranks on both, time limits that are outlasted."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.artifacts import read_tensor_stamp
from tests.workflow.cluster import reason_to_skip, running_cluster
from tests.workflow.zoo import ROOT, SNAKEMAKE, Zoo

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(reason_to_skip()), reason=f"no Slurm: {reason_to_skip()}"),
]
SLOW_STEPS = 3000  # longer than a minute on two ranks
QUICKLY = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"]
MODEL = "results/4_average/tiny_lstm.safetensors"


class Finished:
    """What two invocations of Snakemake on the cluster left: a whole zoo, and a slow segment."""

    def __init__(self, whole: Zoo, slow: Zoo, output: str, slow_output: str):
        self.whole, self.slow, self.output, self.slow_output = whole, slow, output, slow_output


def start(zoo: Zoo, profile: Path | str, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake as a user would, from the folder of a zoo."""
    command = [str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--profile", str(profile)]
    return subprocess.Popen(
        [*command, *QUICKLY, *arguments],
        cwd=zoo.folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
def finished(
    make_zoo: Callable[[], Zoo], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """Run both at once: most of the time is the controllers' waiting."""
    whole, slow = make_zoo(), make_zoo()
    # `--profile slurm` is looked up in the working folder, where the repository has a link.
    (whole.folder / "slurm").symlink_to(ROOT / "slurm")
    slow.change("zoo/tiny_lstm", "optimization.total_steps", SLOW_STEPS)
    slow.change("zoo/tiny_lstm", "optimization.checkpoint_steps", SLOW_STEPS)
    slow.change("zoo/tiny_lstm", "optimization.resume_steps", 100)
    slow.change("zoo/tiny_lstm", "average.last", 1)
    slow.change("architectures/lstm", "encoder.hidden_size", 128)
    profile = slow.folder / "slurm"
    profile.mkdir()
    text = (ROOT / "slurm" / "config.yaml").read_text()
    (profile / "config.yaml").write_text(re.sub(r"runtime: \S+", "runtime: 1m", text))
    with running_cluster(tmp_path_factory.mktemp("slurm")):
        first = start(whole, "slurm", "--config", "nodes=2", "ranks=2")
        second = start(slow, "slurm", MODEL)
        output, slow_output = (process.communicate(timeout=900)[0] for process in (first, second))
        yield Finished(whole, slow, output, slow_output)


def test_the_whole_zoo_runs(finished: Finished) -> None:
    assert "(100%) done" in finished.output, finished.output + finished.whole.logs()
    assert (finished.whole.folder / "results/7_report/report.html").exists()
    assert "Nothing to be done" in finished.whole.snakemake("--config", "nodes=2", "ranks=2")


def test_ranks_run_on_both_nodes(finished: Finished) -> None:
    log = (finished.whole.folder / "results/logs/pretrain/tiny_lstm/step_00000003.log").read_text()
    assert "rank 0 on n1, rank 1 on n2" in log, log


def test_two_nodes_make_the_weights_of_one(finished: Finished, make_zoo: Callable[[], Zoo]) -> None:
    local = make_zoo()
    local.run(MODEL)
    ours, theirs = (read_tensor_stamp(zoo.folder / MODEL) for zoo in (local, finished.whole))
    assert ours["weights"] == theirs["weights"]


def test_a_segment_outlasts_its_time_limit(finished: Finished) -> None:
    """It saves, exits 75, and the next job goes on; nobody touches anything."""
    assert "(100%) done" in finished.slow_output, finished.slow_output + finished.slow.logs()
    stopped = re.findall(r"error: stopped at step \d+", finished.slow_output)
    assert stopped, f"{SLOW_STEPS} steps took less than a minute\n{finished.slow_output}"
    local = Zoo(finished.slow.folder.parent / "local")
    for path in sorted((finished.slow.folder / "config").rglob("*.yaml")):
        target = local.folder / path.relative_to(finished.slow.folder)
        target.write_bytes(path.read_bytes())
    local.run(MODEL)
    ours, theirs = (read_tensor_stamp(zoo.folder / MODEL) for zoo in (local, finished.slow))
    assert ours["weights"] == theirs["weights"]
