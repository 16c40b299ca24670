"""Train a model on instances, in segments that end in published checkpoints.

Starts its own ranks (`--set ranks=2`), or is one rank of those that srun or torchrun started.
Without --from and --to all segments run in turn; those whose files verify are skipped. Killed,
stopped (exit 75) or out of time, the same command continues from the last resume point.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import digest_value, make_stamp, writer_lock
from pipeline.errors import ConfigError, PipelineError, UsageError
from pipeline.spec import OptimizationSpec, PretrainSpec, RunOptions, load_spec
from pipeline.stages.progress import Heartbeat
from pipeline.stages.stopping import StopFlag
from pipeline.training.launcher import (
    Place,
    check_ranks,
    die_with_launcher,
    find_place,
    launch,
)

if TYPE_CHECKING:
    from pipeline.training.pretraining import Pretraining
    from pipeline.training.resume import ResumePoints


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", required=True, help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--instances", type=Path, required=True, help="folder of an instance set")
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--init", type=Path, help="model to start from; absent: random")
    parser.add_argument("--state", type=Path, help="resume points; default OUT.state")
    parser.add_argument("--log", type=Path, help="metrics; default OUT.log")
    parser.add_argument("--from", type=int, dest="start", help="checkpoint to start from; 0: none")
    parser.add_argument("--to", type=int, help="step at which this segment ends")


def run(args: argparse.Namespace) -> None:
    """Launch the ranks, or be one of them."""
    started = float(os.environ.get("PIPELINE_STARTED", time.monotonic()))
    die_with_launcher()
    spec, options = load_spec(PretrainSpec, args.spec, args.set)
    place = find_place()
    check_ranks(place, options.ranks)
    ranks = place.size if place.started_by != "nobody" else options.ranks
    _check_rank_count(spec.optimization, ranks)
    _segments(args, spec.optimization)
    # Read when the arithmetic libraries load, so set before torch is imported; ranks inherit it.
    os.environ.update(OMP_NUM_THREADS="1", MKL_DYNAMIC="FALSE")
    if place.started_by == "nobody" and ranks > 1:
        if code := launch(ranks):
            sys.exit(code)
        return
    _train(args, spec, options, place, started)


def _check_rank_count(plan: OptimizationSpec, ranks: int) -> None:
    legal = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= plan.micro_batches]
    if ranks not in legal:
        raise ConfigError(
            f"ranks: {ranks} do not divide the {plan.micro_batches} micro-batches into equal "
            f"blocks; use one of {', '.join(map(str, legal))}"
        )


def _segments(args: argparse.Namespace, plan: OptimizationSpec) -> list[tuple[int, int]]:
    """Return (from, to) of the segments that were asked for."""
    every = [(step - plan.checkpoint_steps, step) for step in plan.steps()]
    if args.to is None and args.start is None:
        return every
    wanted = (args.start or 0, args.to)
    if wanted not in every:
        raise UsageError(
            f"--from {args.start} --to {args.to}: not a segment; they begin at multiples of "
            f"{plan.checkpoint_steps} and are as long, up to {plan.total_steps}"
        )
    return [wanted]


def _train(
    args: argparse.Namespace,
    spec: PretrainSpec,
    options: RunOptions,
    place: Place,
    started: float,
) -> None:
    stop = StopFlag(options.stop_after_minutes, started)
    state = args.state or args.out.with_name(args.out.name + ".state")
    lock = writer_lock(state) if place.rank == 0 else contextlib.nullcontext()
    opened = _open_run(args, spec, options, place)
    with lock, opened as (training, stamp, metadata), _speaking_once(place):
        # A stale file system, or ranks that were not started with the same arguments.
        facts = {"settings": stamp["settings"], "versions": stamp["versions"], **stamp["inputs"]}
        training.ranks.require_equal({k: digest_value(v) for k, v in facts.items()}, "at the start")
        for start, to in _segments(args, spec.optimization):
            _Segment(args, training, stamp, metadata, state).run(start, to, stop)


@contextlib.contextmanager
def _speaking_once(place: Place) -> Iterator[None]:
    """Leave the error line to rank 0: what ends training ends it on all ranks alike."""
    try:
        yield
    except PipelineError as error:
        if place.rank == 0:
            raise
        print(f"rank {place.rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


@contextlib.contextmanager
def _open_run(
    args: argparse.Namespace, spec: PretrainSpec, options: RunOptions, place: Place
) -> Iterator[tuple["Pretraining", dict[str, Any], dict[str, Any]]]:
    """Give (run, stamp, metadata of its models); everything is checked before ranks meet.

    Rank 0 reads and checks first, so that what is wrong is told once.
    """
    from pipeline.model import check_architecture
    from pipeline.subencoders import spell
    from pipeline.text.shards import InstanceSet
    from pipeline.text.vocabulary import read_vocabulary
    from pipeline.training.checkpoint import require_vocabulary
    from pipeline.training.distributed import Ranks
    from pipeline.training.frequencies import start_at_frequencies
    from pipeline.training.loop import find_device, prepare_torch
    from pipeline.training.pretraining import (
        Pretraining,
        check_instances,
        model_metadata,
        start_from,
    )

    device = find_device(options.device, int(os.environ.get("LOCAL_RANK", place.rank)))
    prepare_torch(device)
    ranks = Ranks(place, device) if place.rank else None
    vocabulary = read_vocabulary(args.vocab)
    check_architecture(spec.architecture, spec.targets, len(vocabulary.tokens), spec.reference)
    instances = InstanceSet.open(args.instances)
    require_vocabulary(instances.manifest, vocabulary.digest, str(args.instances))
    check_instances(spec, instances.kind, str(args.instances))
    with contextlib.closing(ranks or Ranks(place, device)) as ranks:
        characters = spell(vocabulary) if spec.architecture.subencoder else None
        made = Pretraining(spec, instances, vocabulary.token_ids, ranks, characters)
        with contextlib.closing(made) as training:
            if not args.start:
                start_at_frequencies(training)
            init = start_from(training, args.init, vocabulary.digest) if args.init else None
            inputs = {
                "instances": digest_value(instances.manifest),
                "vocabulary": vocabulary.digest,
                "init": init,
            }
            stamp = make_stamp("pretrain", spec.model_dump(mode="json"), inputs, "torch")
            if place.rank == 0:
                places = ", ".join(f"rank {n} on {node}" for n, node in enumerate(ranks.nodes))
                print(f"pretrain: {device.type}, {places}", file=sys.stderr, flush=True)
            yield training, stamp, model_metadata(spec, stamp, instances, vocabulary)


class _Segment:
    """One segment: from a published checkpoint (or the start) to the next one."""

    def __init__(
        self,
        args: argparse.Namespace,
        training: "Pretraining",
        stamp: dict[str, Any],
        metadata: dict[str, Any],
        state: Path,
    ):
        self.out, self.training, self.stamp = args.out, training, stamp
        self.metadata, self.state = metadata, state
        self.alone = args.to is not None
        self.log = args.log or args.out.with_name(args.out.name + ".log")
        self.leads = training.ranks.rank == 0

    def run(self, start: int, to: int, stop: StopFlag) -> None:
        """Train the segment and publish its files, or find them done."""
        from pipeline.training.resume import ResumePoints
        from pipeline.training.segments import SegmentFiles

        files = SegmentFiles(self.out, to)
        if not self.alone and self._agree(self.leads and files.exist()):
            files.load(self.stamp)
            return
        origin = self._begin(start)
        points = ResumePoints(self.state, f"{to:08d}", {**self.stamp, "from": origin, "to": to})
        self._resume(points)
        self._learn(to, points, stop)
        self.training.save_point(points)
        checkpoint = self.training.checkpoint(self.stamp)
        if self.leads:
            files.publish(checkpoint, self.metadata)
            points.forgive_attempt()

    def _agree(self, done: bool) -> bool:
        """Return what rank 0 found."""
        return bool(self.training.ranks.sum_integers([int(done)])[0])

    def _begin(self, start: int) -> dict[str, str] | None:
        """Put the run where the segment starts; return the digests of the files it starts from."""
        from pipeline.training.segments import SegmentFiles

        training = self.training
        training.curve = []
        if start == 0:
            return None
        checkpoint = SegmentFiles(self.out, start).load(self.stamp)
        training.restore(start, checkpoint.weights, checkpoint.moments)
        training.tokens = checkpoint.record["tokens"]
        return {key: checkpoint.record[key] for key in ("weights", "optimizer")}

    def _resume(self, points: "ResumePoints") -> None:
        if self.leads:
            points.remove_others()
        if found := points.latest():
            self.training.resume(*found)
        # All ranks must have found the same point: a stale file system would show here.
        self.training.ranks.require_equal({"step": str(self.training.step)}, str(points.folder))
        if self.leads:
            points.count_attempt(self.training.step)

    def _learn(self, to: int, points: "ResumePoints", stop: StopFlag) -> None:
        from pipeline.training.log import MetricsLog

        training = self.training
        if not self.leads:
            training.run(to, points, stop, lambda line: None)
            return
        with MetricsLog(self.log, training.step) as log, Heartbeat("pretrain", to) as heartbeat:
            if training.step:
                heartbeat.note(f"continues after step {training.step}")

            def report(line: dict[str, Any]) -> None:
                log.write(line)
                heartbeat.step(line["step"], line)

            training.run(to, points, stop, report)
