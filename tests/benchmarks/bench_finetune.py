"""Scores and cost of fine-tuning beside the 2020 reference's own scripts.

    python -m tests.benchmarks.bench_finetune --reference CHECKOUT --data DATA --work WORK \
        [--tasks douban_book_review,msra_ner] [--seeds 7,17,27] [--model MODEL] [--preset] \
        [--json FILE]

Both sides get the same rows, hyper-parameters and starting weights, a BERT of 3 layers of 384
(untrained unless --model names one, which goes to the reference through `convert --to uer`). Ours
runs in its default mode through the command line, `finetune` and `evaluate`, as the workflow does:
a thread for each seed, as many seeds side by side as --threads. The reference runs seed after seed
with that many threads. With --preset ours runs once more with `reference: uer-2020` and the
optimiser that the reference has.

Means over seeds should differ by less than two standard errors. What the reference does otherwise
by a defect is named below each result. Its weights are also scored by our `evaluate`, so that
scorers and models can be told apart. WORK keeps what is finished: the same command continues;
a seed that a kill left over has no neighbour then, which makes it look cheaper.
Without --reference ours alone is measured.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import (
    digest_file,
    digest_value,
    make_stamp,
    read_tensor_stamp,
    write_json,
)
from tests.benchmarks.bench_pretrain import TINY
from tests.benchmarks.finetune_figures import (
    OURS,
    PRESET,
    REFERENCE,
    RESCORED,
    Result,
    show,
    summarize_sides,
)
from tests.benchmarks.finetune_reference import as_native, run_reference
from tests.benchmarks.finetune_rows import CASES, Case, Cut, cut
from tests.benchmarks.processes import Job, command_line, describe_machine, run_jobs
from tests.faults.kit import ROOT, command, run
from tests.pipeline.probes.tiny import write_model

HYPER_PARAMETERS = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-4, "seq_length": 128}
# What `reference: uer-2020` leaves to other settings.
AS_THE_REFERENCE: dict[str, Any] = {
    "reference": "uer-2020", "bias_correction": False, "weight_decay": 0.0, "clip_norm": 0.0,
}  # fmt: skip
# Options that `reference: uer-2020` decides, so they must not be spelled out.
MODES = ("norm", "read_padding")


class Bench:
    """The inputs of all sides, and one run of each; finished runs are read from the work folder."""

    def __init__(self, args: argparse.Namespace, work: Path):
        self.args, self.work = args, work
        self.settings = {**HYPER_PARAMETERS, "epochs": args.epochs}
        self.settings["learning_rate"] = args.learning_rate
        self.vocab = self._vocabulary()
        self.start = self._start()
        self.inputs = {
            "vocabulary": digest_file(self.vocab, "sha256"),
            "start": digest_file(self.start, "sha256"),
        }
        self.starts = {OURS: self.start}
        self.exported = work / f"start_{self.inputs['start'][:12]}"
        if args.reference or args.preset:
            self._export()

    # Inputs -----------------------------------------------------------------------------------

    def _vocabulary(self) -> Path:
        given: Path | None = self.args.model
        if given and given.is_dir():
            return given / "vocab.txt"
        if self.args.reference:
            return self.args.reference / "models" / "google_zh_vocab.txt"
        parts = [self.cut(name).train for name in self.args.tasks]
        vocab = self.work / f"vocab_{digest_value([digest_file(part) for part in parts])[:12]}.txt"
        if not vocab.exists():
            print("--reference not given: ours alone, with a vocabulary of the training rows")
            stage("vocab", "--spec", "{}", "--corpus", *parts, "--out", vocab)
        return vocab

    def _start(self) -> Path:
        given: Path | None = self.args.model
        if given:
            return given / "model.safetensors" if given.is_dir() else given
        folder = self.work / f"untrained_{digest_file(self.vocab)[:12]}"
        if not (folder / "model.safetensors").exists():
            folder.mkdir(exist_ok=True)
            shutil.copyfile(self.vocab, folder / "vocab.txt")
            write_model(folder, encoder=TINY, embedding={"name": "bert"}, scale=1.0)
        return folder / "model.safetensors"

    def _export(self) -> None:
        """Write the start for the reference, and from that one for ours as the reference computes.

        The latter has the same numbers and other settings.
        """
        preset = self.exported.with_name(self.exported.name + "_preset")
        if not self.exported.exists():
            stage("convert", "--from", "native", "--to", "uer", "--in", self.start,
                  "--vocab", self.vocab, "--out", self.exported)  # fmt: skip
        if not preset.exists():
            parts = read_tensor_stamp(self.start)["architecture"]
            assert parts["encoder"]["name"] == "transformer", "a BERT is compared"
            plain = {
                room: {k: v for k, v in part.items() if k not in MODES}
                for room, part in parts.items()
                if part
            }
            spec = {"architecture": plain, "reference": "uer-2020"}
            stage("convert", "--from", "uer", "--to", "native", "--spec", json.dumps(spec),
                  "--in", self.exported / "model.bin", "--vocab", self.vocab,
                  "--out", preset)  # fmt: skip
        self.starts[PRESET] = preset / "model.safetensors"

    def cut(self, name: str) -> Cut:
        """Return the rows of a data set for both sides."""
        source, folder = self.args.data / name, self.work / "rows" / name
        return cut(CASES[name], source, folder, self.args.rows, self.args.test_rows)

    # Runs -------------------------------------------------------------------------------------

    def results(self, name: str, side: str) -> list[Result]:
        """Return the results of all seeds on one side, in their order."""
        case, data = CASES[name], self.cut(name)
        kept, missing = {}, []
        for seed in self.args.seeds:
            path, key = self._place(name, side, seed), self._key(case, data, side, seed)
            value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if value.get("key") == key:
                kept[seed] = value
            else:
                missing.append(seed)
        runner = self._run_reference if side == REFERENCE else self._run_ours
        for seed, result in runner(name, side, missing):
            result["key"] = self._key(case, data, side, seed)
            self._place(name, side, seed).write_text(json.dumps(result), encoding="utf-8")
            kept[seed] = result
            print(f"  {name}, {side}, seed {seed}: {_told(result)}", file=sys.stderr, flush=True)
        return [kept[seed] for seed in self.args.seeds]

    def _place(self, name: str, side: str, seed: int) -> Path:
        folder = self.work / "results" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{side}_{seed}.json"

    def _key(self, case: Case, data: Cut, side: str, seed: int) -> str:
        spec = self._spec(case, side, seed)
        return digest_value([spec, side, data.digests(), self.inputs, self.args.threads])

    def _spec(self, case: Case, side: str, seed: int) -> dict[str, Any]:
        preset = AS_THE_REFERENCE if side == PRESET else {}
        return {"task": case.task, **self.settings, **case.settings, "seed": seed, **preset}

    def _run_ours(self, name: str, side: str, seeds: list[int]) -> Iterator[tuple[int, Result]]:
        folder = self.work / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        jobs = {seed: self._job(name, side, seed, folder) for seed in seeds}
        for seed, ended in run_jobs(jobs, self.args.threads):
            if ended.code:
                raise RuntimeError(f"{name}, {side}, seed {seed}:\n{ended.said[-2000:]}")
            model = folder / f"{side}_{seed}.safetensors"
            model.replace(folder / "template.safetensors")  # one is enough to describe all
            yield seed, {**read_scores(folder / f"{side}_{seed}.json"), **ended.costs()}

    def _job(self, name: str, side: str, seed: int, folder: Path) -> Job:
        data, spec = self.cut(name), self._spec(CASES[name], side, seed)
        model, metrics = (folder / f"{side}_{seed}{end}" for end in (".safetensors", ".json"))
        state = folder / f"{side}_{seed}.state"
        shutil.rmtree(state, ignore_errors=True)  # what a killed run did would cost nothing
        train = command("finetune", "--spec", json.dumps(spec), "--train", data.train,
                        "--dev", data.dev, "--vocab", self.vocab, "--init", self.starts[side],
                        "--state", state, "--set", "device=cpu", "--out", model)  # fmt: skip
        score = command("evaluate", "--model", model, "--vocab", self.vocab, "--data", data.test,
                        "--set", "device=cpu", "--out", metrics)  # fmt: skip
        return Job([train, score], ROOT, folder / f"{side}_{seed}.log")

    def _run_reference(
        self, name: str, side: str, seeds: list[int]
    ) -> Iterator[tuple[int, Result]]:
        case, data = CASES[name], self.cut(name)
        folder = self.work / "runs" / name
        for seed in seeds:
            settings = self._spec(case, side, seed)
            result, weights = run_reference(
                case, self.args.reference, self.exported, self.vocab, data, settings,
                self.args.threads, folder,
            )  # fmt: skip
            # The reader's ends are exclusive, ours are not.
            if weights.exists() and case.task["name"] != "span":
                result[RESCORED] = self._rescore(weights, data, folder)
            weights.unlink(missing_ok=True)
            yield seed, result

    def _rescore(self, weights: Path, data: Cut, folder: Path) -> float:
        """Return the score of the reference's weights by our `evaluate`."""
        model, metrics = folder / "reference.safetensors", folder / "rescored.json"
        as_native(weights, folder / "template.safetensors", data.train, model)
        stage("evaluate", "--model", model, "--vocab", self.vocab, "--data", data.test,
              "--set", "device=cpu", "--out", metrics)  # fmt: skip
        model.unlink()
        return float(read_scores(metrics)["score"])


def stage(*arguments: object) -> None:
    """Run a stage to its end; it must end well."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr


def read_scores(metrics: Path) -> Result:
    """Return what `evaluate` wrote, in percent."""
    value = json.loads(metrics.read_text(encoding="utf-8"))
    percent = {name: 100 * number for name, number in value["metrics"].items()}
    main = value["main_metric"]
    return {"metric": main, "score": percent[main], "metrics": percent, "counts": value["counts"]}


def _told(result: Mapping[str, Any]) -> str:
    score = "no score" if result["score"] is None else f"{result['score']:.2f}"
    return f"{score} ({result['seconds']:.0f} s)"


def measure(bench: Bench, name: str) -> dict[str, Any]:
    """Return everything about one data set."""
    args, case = bench.args, CASES[name]
    sides = [OURS, *([PRESET] if args.preset else []), *([REFERENCE] if args.reference else [])]
    results = {side: bench.results(name, side) for side in sides}
    first = results[OURS][0]
    return {
        "task": case.task,
        "metric": first["metric"],
        "settings": {**bench.settings, **case.settings},
        "counts": first["counts"],
        "inputs": bench.cut(name).digests(),
        **summarize_sides(case, results, args.threads),
    }


# Command line ---------------------------------------------------------------------------------


def read_arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    names = [name for name in CASES if name != "afqmc"]
    parser.add_argument("--tasks", default=",".join(names), help=f"of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="7,17,27")
    parser.add_argument("--rows", type=int, default=4000, help="training rows; reader: a fifth")
    parser.add_argument("--test-rows", type=int, default=2000, help="reader: a tenth")
    parser.add_argument("--epochs", type=int, default=HYPER_PARAMETERS["epochs"])
    rate = HYPER_PARAMETERS["learning_rate"]
    parser.add_argument("--learning-rate", type=float, default=rate)
    parser.add_argument("--threads", type=int, default=2, help="cores that each side may use")
    parser.add_argument("--reference", type=Path, help="checkout of the reference")
    parser.add_argument("--data", type=Path, required=True, help="a folder for each data set")
    parser.add_argument("--model", type=Path, help="a BERT to start from; absent: untrained")
    parser.add_argument("--preset", action="store_true", help="ours as the reference, too")
    parser.add_argument("--work", type=Path, help="keeps what is finished; absent: nothing kept")
    parser.add_argument("--out", type=Path, help="the figures as text, too")
    parser.add_argument("--json", type=Path, help="the figures as JSON, too")
    args = parser.parse_args(given)
    args.tasks, args.seeds = args.tasks.split(","), list(map(int, args.seeds.split(",")))
    if unknown := set(args.tasks) - set(CASES):
        parser.error(f"--tasks: {', '.join(sorted(unknown))}; expected of {', '.join(CASES)}")
    for key in ("reference", "data", "model", "work"):
        if path := getattr(args, key):
            setattr(args, key, path.resolve())
    return args


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the data sets that were asked for; return all figures."""
    args = read_arguments(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs in progress end too
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with tempfile.TemporaryDirectory() as name:
        work = args.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(args, work)
        records: dict[str, Any] = {}
        for task in args.tasks:
            records[task] = measure(bench, task)
            show(task, records[task], say)
        value = _document(args, bench, records)
    if args.out:
        args.out.write_text("\n".join([*lines, ""]), encoding="utf-8")
    if args.json:
        write_json(args.json, value)
    return value


def _document(args: argparse.Namespace, bench: Bench, tasks: dict[str, Any]) -> dict[str, Any]:
    settings = {"rows": args.rows, "test_rows": args.test_rows, "seeds": args.seeds}
    return {
        "stamp": make_stamp("bench_finetune", settings, bench.inputs, "torch"),
        "machine": describe_machine(),
        "command": command_line("bench_finetune", args),
        "threads": {
            "reference": f"{args.threads} for each run, one run at a time",
            "ours": f"1 for each run, {args.threads} runs at a time",
        },
        "start": "untrained" if args.model is None else "--model",
        "tasks": tasks,
    }


if __name__ == "__main__":
    main()
