"""Results on disk to the records of a report, each file checked against what it claims to be.

A missing file is a gap and a warning; a file that belongs to something else is an error.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import digest_value, read_json_artifact, read_tensor_stamp
from pipeline.errors import ArtifactError, DataError, printable
from pipeline.recipes import Start
from pipeline.report.costs import read_resources, read_speed
from pipeline.report.inside import probe_files, read_answers
from pipeline.report.inventory import Artifact, scan
from pipeline.report.mistakes import read_mistakes
from pipeline.report.results import (
    Answers,
    Metrics,
    Planned,
    RecipeResult,
    Run,
    Step,
    Tuning,
    parse,
)
from pipeline.report.settings import ReportedRecipe, ScoreSet
from pipeline.report.training import count_parameters, join_training


def discover(results: Path) -> list[ReportedRecipe]:
    """Return the recipes that have results, with the runs and probes that are there, by name."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((results / "3_pretrain").glob("*/step_*.json")):
        runs.setdefault(path.parent.name, [])
    for path in sorted((results / "6_evaluate").glob("*/*/*_seed_*.json")):
        start, _, seed = path.stem.partition("_seed_")
        if seed.isdigit() and start in ("pretrained", "random"):
            run = {"dataset": path.parent.name, "starts": [start], "seeds": [int(seed)]}
            runs.setdefault(path.parent.parent.name, []).append(run)
    probes: dict[str, list[str]] = {}
    for path in sorted((results / "6_probe").glob("*/*.json")):
        runs.setdefault(path.parent.name, [])
        probes.setdefault(path.parent.name, []).append(path.stem)
    return [
        parse(
            ReportedRecipe,
            {"name": name, "scores": scores, "probes": probes.get(name, [])},
            str(results / "6_evaluate"),
        )
        for name, scores in sorted(runs.items())
    ]


class Gatherer:
    """Reads the results of recipe after recipe; `gaps` tells what was missing."""

    def __init__(self, results: Path, data: Path, examples: int):
        self.results, self.data, self.examples = results, data, examples
        self.inventory = scan(results, data)
        self.gaps: list[tuple[str, str]] = []
        """(recipe, file below the results folder)."""
        self._rows: dict[str, tuple[str, Path]] = {}

    def read(self, recipe: ReportedRecipe) -> RecipeResult:
        """Return everything about one recipe.

        Raises ArtifactError for a damaged file and for scores or answers of another model.
        """
        runs = [self._run(recipe, *which) for which in _wanted(recipe.scores)]
        answers = self._answers(recipe)
        steps = self._step_files(recipe)
        records = [read_json_artifact(path, "pretrain") for path in steps if path.exists()]
        weights = self._weights(recipe, steps)
        ends = [self.results / run.place for run in runs if run.result]
        ends += [self.results / probe_files(recipe.name, found.name)[0] for found in answers]
        lineage = self._lineage(ends or ([weights] if weights else []))
        recipe = _named(recipe, lineage)
        self._note_gaps(recipe, runs, steps)
        manifest = self._record("instances", "2_instances/{}/manifest.json", recipe.instances)
        return RecipeResult(
            recipe=recipe,
            runs=runs,
            answers=answers,
            training=join_training(records) if records else None,
            parameters=count_parameters(weights) if weights else None,
            vocabulary=self._record("vocab", "1_vocab/{}.json", recipe.vocabulary),
            instances={key: value for key, value in manifest.items() if key != "shards"},
            fetched=[_ledger(artifact) for artifact in lineage if artifact.stage == "fetch"],
            lineage=[self._step(artifact) for artifact in lineage],
            versions=_versions(lineage),
            resources=read_resources(self.results / "benchmarks", recipe),
            planned=self._planned(recipe.name),
            tokens_per_second=read_speed(self.results / "logs" / "pretrain" / recipe.name),
        )

    # Scores -----------------------------------------------------------------------------------

    def _run(self, recipe: ReportedRecipe, dataset: str, start: Start, seed: int) -> Run:
        owner = recipe.baseline if start == "random" and recipe.baseline else recipe.name
        name = f"{owner}/{dataset}/{start}_seed_{seed}"
        path = self.results / "6_evaluate" / f"{name}.json"
        run = Run(dataset=dataset, start=start, seed=seed, place=f"6_evaluate/{name}.json")
        if not path.exists():
            return run
        record = read_json_artifact(path, "evaluate")
        result = parse(Metrics, record, str(path))
        if result.main_metric and result.main_metric not in result.metrics:
            main = printable(result.main_metric)
            raise DataError(f"{path}: main_metric '{main}' is not among its metrics")
        self._same_rows(dataset, result, path)
        model = self.results / "5_finetune" / f"{name}.safetensors"
        found = {
            "result": result,
            "digest": digest_value(record),
            "tuning": self._tuning(recipe, run, result, model) if model.exists() else None,
            "mistakes": read_mistakes(path.with_suffix(".predictions.tsv"), self.examples),
        }
        return run.model_copy(update=found)

    def _same_rows(self, dataset: str, result: Metrics, path: Path) -> None:
        """All runs on a data set are scored on the same rows."""
        data, first = self._rows.setdefault(dataset, (result.data, path))
        if data != result.data:
            raise ArtifactError(
                f"{path}: scored on rows {result.data[:12]}..., {first} on {data[:12]}...; one of "
                f"them is not about {dataset}, evaluate it again"
            )

    def _tuning(self, recipe: ReportedRecipe, run: Run, result: Metrics, model: Path) -> Tuning:
        """Return how a model was fine-tuned, once it is the scored one and from the right start."""
        record = read_tensor_stamp(model, verify=False)
        if record["weights"] != result.model:
            raise ArtifactError(
                f"{self.results / run.place}: scores of model {result.model[:12]}..., but {model} "
                f"is {record['weights'][:12]}...; evaluate it again"
            )
        stamp = record["stamp"]
        if stamp["settings"].get("seed", run.seed) != run.seed:
            seed = printable(stamp["settings"]["seed"])
            raise ArtifactError(f"{model}: made with seed {seed}, its name says {run.seed}")
        init = stamp["inputs"].get("init")
        average = self._average(recipe)
        wanted = None
        if run.start == "pretrained":
            wanted = (
                read_tensor_stamp(average, verify=False)["weights"] if average.exists() else init
            )
        if init != wanted:
            expected = f"{average} is {wanted[:12]}..." if wanted else "it should be random"
            begun = f"model {init[:12]}..." if init else "a random start"
            raise ArtifactError(f"{model}: begun from {begun}, but {expected}; fine-tune it again")
        return parse(Tuning, record["dev"], f"{model}: dev")

    # Probes -----------------------------------------------------------------------------------

    def _answers(self, recipe: ReportedRecipe) -> list[Answers]:
        """Return what the probes of a recipe found, those that are there."""
        found = []
        for name in recipe.probes:
            files = [self.results / place for place in probe_files(recipe.name, name)]
            if all(path.exists() for path in files):
                found.append(read_answers(files[0], self._average(recipe)))
        return found

    # Training, text and lineage ---------------------------------------------------------------

    def _step_files(self, recipe: ReportedRecipe) -> list[Path]:
        folder = self.results / "3_pretrain" / recipe.name
        if recipe.steps:
            return [folder / f"step_{step:08d}.json" for step in sorted(recipe.steps)]
        return sorted(folder.glob("step_*.json"))

    def _weights(self, recipe: ReportedRecipe, steps: Sequence[Path]) -> Path | None:
        """Return the pre-trained model's file, or the last checkpoint's, whichever is there."""
        files = [
            self._average(recipe),
            *(path.with_suffix(".safetensors") for path in reversed(steps)),
        ]
        return next((path for path in files if path.exists()), None)

    def _average(self, recipe: ReportedRecipe) -> Path:
        return self.results / "4_average" / f"{recipe.name}.safetensors"

    def _record(self, stage: str, place: str, name: str | None) -> dict[str, Any]:
        """Return a record with its name, empty where it is missing."""
        path = self.results / place.format(name)
        if name is None or not path.exists():
            return {}
        return {"name": name, **read_json_artifact(path, stage)}

    def _planned(self, recipe: str) -> list[Planned]:
        """Return what `plan --out results/plan.json` foretold of a recipe; empty without one."""
        path = self.results / "plan.json"
        if not path.exists():
            return []
        lines = read_json_artifact(path, "plan")["recipes"].get(recipe, [])
        return [parse(Planned, line, f"{path}: {recipe}") for line in lines]

    def _lineage(self, ends: Sequence[Path]) -> list[Artifact]:
        """Return the files `ends` and all they were made from, in the order of the folders."""
        found: dict[Path, Artifact] = {}
        for path in ends:
            artifact = self.inventory.at(path)
            found |= {a.path: a for a in [artifact, *self.inventory.ancestors(artifact)]}
        return sorted(found.values(), key=self._place)

    def _place(self, artifact: Artifact) -> str:
        """Return a file's path below the results or the data folder."""
        roots = [root for root in (self.results, self.data) if artifact.path.is_relative_to(root)]
        return artifact.path.relative_to(roots[0]).as_posix()

    def _step(self, artifact: Artifact) -> Step:
        return Step(
            path=self._place(artifact),
            stage=artifact.stage,
            digest=artifact.digest,
            inputs=artifact.inputs,
        )

    def _note_gaps(
        self, recipe: ReportedRecipe, runs: Sequence[Run], steps: Sequence[Path]
    ) -> None:
        """Note every gap, unless the recipe is known not to run here."""
        if recipe.unavailable:
            return
        expected = list(steps)
        if recipe.vocabulary:
            expected.append(self.results / "1_vocab" / f"{recipe.vocabulary}.json")
        if recipe.instances:
            expected.append(self.results / "2_instances" / recipe.instances / "manifest.json")
        expected += [self.results / run.place for run in runs]
        for name in recipe.probes:
            expected += [self.results / place for place in probe_files(recipe.name, name)]
        for path in expected:
            gap = (recipe.name, path.relative_to(self.results).as_posix())
            if not path.exists() and gap not in self.gaps:
                self.gaps.append(gap)


def _named(recipe: ReportedRecipe, lineage: Sequence[Artifact]) -> ReportedRecipe:
    """Return the recipe with vocabulary and instances named, from the lineage if need be."""
    names = {
        "vocabulary": [a.path.stem for a in lineage if a.stage == "vocab"],
        "instances": [a.path.parent.name for a in lineage if a.path.name == "manifest.json"],
    }
    known = recipe.model_dump(include=set(names), exclude_none=True)
    return recipe.model_copy(update={**{k: v[0] for k, v in names.items() if v}, **known})


def _wanted(scores: Sequence[ScoreSet]) -> Iterator[tuple[str, Start, int]]:
    for wanted in scores:
        for start in wanted.starts:
            for seed in wanted.seeds:
                yield wanted.dataset, start, seed


def _ledger(artifact: Artifact) -> dict[str, Any]:
    """Return what a fetched text's ledger counts, with the name of the text."""
    path = artifact.path
    name = path.parent.name if path.name == "ledger.json" else path.name.partition(".")[0]
    return {"name": name, **{k: v for k, v in artifact.record.items() if k != "stamp"}}


def _versions(lineage: Sequence[Artifact]) -> dict[str, list[str]]:
    """Return package -> the versions that made any file of the lineage."""
    versions: dict[str, set[str]] = {}
    for artifact in lineage:
        for package, version in artifact.stamp.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    return {package: sorted(found) for package, found in sorted(versions.items())}
