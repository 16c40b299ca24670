"""The workflow on a real Slurm of two nodes: ranks on both, time limits that are outlasted."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from pipeline.artifacts import read_tensor_stamp
from tests.workflow.cluster import reason_to_skip, running_cluster
from tests.workflow.zoo import ROOT, SNAKEMAKE, Zoo

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(reason_to_skip()), reason=f"no Slurm: {reason_to_skip()}"),
]
QUICKLY = ["--slurm-init-seconds-before-status-checks", "9"]
QUICKLY += ["--seconds-between-status-checks", "9"]
MODEL = "results/4_average/tiny_lstm.safetensors"
SLOW_SECONDS = 80  # of training at the best pace seen, where the limit leaves 45
PROBE_STEPS = 200


class Finished:
    """What two invocations of Snakemake on the cluster left: a whole zoo, and a slow segment."""

    def __init__(self, whole: Zoo, slow: Zoo, outputs: list[str]):
        self.whole, self.slow = whole, slow
        self.output, self.slow_output = outputs


def start(zoo: Zoo, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake as a user would, from the folder of a zoo."""
    command = [str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--profile", "slurm"]
    return subprocess.Popen(
        [*command, *QUICKLY, *arguments],
        cwd=zoo.folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def slow_down(zoo: Zoo) -> None:
    """Give the zoo one segment of SLOW_SECONDS or more: other tests may have slowed the probe."""
    zoo.change("architectures/lstm", "encoder.hidden_size", 128)
    zoo.change("zoo/tiny_lstm", "optimization.resume_steps", 50)
    set_steps(zoo, PROBE_STEPS)
    zoo.run(f"results/3_pretrain/tiny_lstm/step_{PROBE_STEPS:08d}.json")
    metrics = zoo.folder / "results/logs/pretrain/tiny_lstm/metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    seconds = min(
        (end["time"] - begin["time"]) / (end["step"] - begin["step"])
        for begin, end in itertools.pairwise(lines)
    )
    set_steps(zoo, round(SLOW_SECONDS / seconds))


def set_steps(zoo: Zoo, steps: int) -> None:
    """Make the recipe one segment of that many steps."""
    for key in ("total_steps", "checkpoint_steps"):
        zoo.change("zoo/tiny_lstm", f"optimization.{key}", steps)


@pytest.fixture(scope="module")
def finished(
    make_zoo: Callable[[], Zoo], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """Run both at once: most of the time is the controllers' waiting."""
    whole, slow = make_zoo(), make_zoo()
    slow_down(slow)
    # `--profile slurm` is looked up in the working folder, where the repository has a link.
    (whole.folder / "slurm").symlink_to(ROOT / "slurm")
    (slow.folder / "slurm").mkdir()
    text = (ROOT / "slurm" / "config.yaml").read_text()
    limited = re.sub(r"runtime: \S+", "runtime: 1m", text)
    (slow.folder / "slurm" / "config.yaml").write_text(limited)
    with running_cluster(tmp_path_factory.mktemp("slurm")):
        controllers = [start(whole, "--config", "nodes=2", "ranks=2"), start(slow, MODEL)]
        try:
            outputs = [controller.communicate(timeout=900)[0] for controller in controllers]
        finally:
            for controller in controllers:
                controller.kill()
        yield Finished(whole, slow, outputs)


def test_the_whole_zoo_runs(finished: Finished) -> None:
    assert "(100%) done" in finished.output, finished.output + finished.whole.logs()
    assert (finished.whole.folder / "results/7_report/report.html").exists()
    assert "Nothing to be done" in finished.whole.snakemake("--config", "nodes=2", "ranks=2")


def test_ranks_run_on_both_nodes(finished: Finished) -> None:
    log = (finished.whole.folder / "results/logs/pretrain/tiny_lstm/step_00000003.log").read_text()
    assert "rank 0 on n1, rank 1 on n2" in log, log


def test_two_nodes_make_the_weights_of_one(finished: Finished, finished_zoo: Zoo) -> None:
    ours, theirs = (read_tensor_stamp(zoo.folder / MODEL) for zoo in (finished_zoo, finished.whole))
    assert ours["weights"] == theirs["weights"]


def test_a_segment_outlasts_its_time_limit(finished: Finished) -> None:
    """It saves, exits 75, and the next job goes on; the weights are those of a run in one go."""
    assert "(100%) done" in finished.slow_output, finished.slow_output + finished.slow.logs()
    stopped = re.findall(r"error: stopped at step \d+", finished.slow_output)
    assert stopped, f"nothing was stopped\n{finished.slow_output}"
    continued = read_tensor_stamp(finished.slow.folder / MODEL)
    shutil.rmtree(finished.slow.folder / "results" / "4_average")
    shutil.rmtree(finished.slow.folder / "results" / "3_pretrain")
    shutil.rmtree(finished.slow.folder / "state")
    finished.slow.run(MODEL)
    assert read_tensor_stamp(finished.slow.folder / MODEL)["weights"] == continued["weights"]
