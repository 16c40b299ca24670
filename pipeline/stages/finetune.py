"""Train a task head and the network under it; publish the model that is best on dev.

Without --init the network starts random. A list of learning rates is tried in turn. Killed,
stopped (exit 75) or out of time, the same command continues from the last resume point.
"""

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import make_stamp, writer_lock
from pipeline.errors import UsageError
from pipeline.spec import FinetuneSpec, RunOptions, load_spec
from pipeline.stages.progress import Heartbeat
from pipeline.stages.stopping import StopFlag

if TYPE_CHECKING:
    from pipeline.training.finetuning import Finetuning
    from pipeline.training.preparation import Preparation

# What a kill can cost; a save writes the model, its moments and the best one so far.
RESUME_SECONDS = float(os.environ.get("PIPELINE_RESUME_SECONDS", "120"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", required=True, help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--train", type=Path, required=True, help="labelled rows to learn from")
    parser.add_argument("--dev", type=Path, required=True, help="labelled rows to choose by")
    parser.add_argument("--vocab", type=Path, help="absent: that of the directory --init")
    parser.add_argument("--init", type=Path, help="model to start from; absent: random")
    parser.add_argument("--state", type=Path, help="resume points; default OUT.state")
    parser.add_argument("--log", type=Path, help="metrics; default OUT.log")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")


def run(args: argparse.Namespace) -> None:
    """Fine-tune and publish."""
    started = time.monotonic()
    spec, options = load_spec(FinetuneSpec, args.spec, args.set)
    if options.ranks != 1:
        raise UsageError(
            f"--set ranks={options.ranks}: fine-tuning runs on one; start several seeds"
        )
    # Read when the arithmetic libraries load, so set before torch is imported.
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")
    stop = StopFlag(options.stop_after_minutes, started)
    state = args.state or args.out.with_name(args.out.name + ".state")
    with writer_lock(state):
        _finetune(args, spec, options, state, stop)
    if args.state is None:
        shutil.rmtree(state)


def _finetune(
    args: argparse.Namespace, spec: FinetuneSpec, options: RunOptions, state: Path, stop: StopFlag
) -> None:
    from pipeline.training.checkpoint import save_tensors
    from pipeline.training.distributed import Ranks
    from pipeline.training.finetuning import Finetuning
    from pipeline.training.inference import SEEN
    from pipeline.training.launcher import Place
    from pipeline.training.loop import find_device, prepare_torch
    from pipeline.training.preparation import Preparation
    from pipeline.training.resume import ResumePoints

    device = find_device(options.device)
    prepare_torch(device)
    start = Preparation(spec, args.init, args.vocab)
    start.read(args.train, args.dev)
    stamp = make_stamp("finetune", start.spec.model_dump(mode="json"), start.inputs(), "torch")
    ranks = Ranks(Place(0, 1, "nobody"), device)
    tuning = Finetuning(start.spec, start.task, start.build, start.rounds(), start.dev, ranks)
    points = ResumePoints(state, "finetune", stamp)
    points.remove_others()
    if found := points.latest():
        tuning.resume(*found[1:])
    points.count_attempt(tuning.position)
    _train(args, start, tuning, points, stop)
    tensors = {**tuning.best_tensors, SEEN: start.seen()}
    save_tensors(args.out, tensors, start.metadata(stamp) | tuning.record())
    shutil.rmtree(points.folder.parent)


def _train(
    args: argparse.Namespace,
    start: "Preparation",
    tuning: "Finetuning",
    points: Any,
    stop: StopFlag,
) -> None:
    from pipeline.training.log import MetricsLog

    folder = args.log or args.out.with_name(args.out.name + ".log")
    with (
        MetricsLog(folder, tuning.position) as log,
        Heartbeat("finetune", tuning.total_steps) as heartbeat,
    ):
        for warning in start.warnings():
            heartbeat.note(warning)
        if tuning.position:
            heartbeat.note(f"continues after step {tuning.position}")

        def report(line: dict[str, Any]) -> None:
            log.write(line)
            heartbeat.step(line["step"], line)

        tuning.run(points, stop, report, RESUME_SECONDS)
