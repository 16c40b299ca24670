"""The way from text to score of a recipe: its files by stage, each with what it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.results import RecipeResult, Step

STAGE_TITLES = {
    "fetch": "Text",
    "convert": "Imported model",
    "vocab": "Vocabulary",
    "instances": "Instances",
    "pretrain": "Checkpoints",
    "average": "Model",
    "finetune": "Fine-tuned",
    "evaluate": "Scores",
    "probe": "Probes",
}
STAGE_ORDER = tuple(STAGE_TITLES)


@dataclass(frozen=True)
class ChainStage:
    """The files of one stage."""

    title: str
    steps: Sequence[Step]


def chain_of(recipe: RecipeResult) -> list[ChainStage]:
    """Return the stages that have files, in the order of the flow."""
    stages = []
    for stage, title in STAGE_TITLES.items():
        if steps := [step for step in recipe.lineage if step.stage == stage]:
            stages.append(ChainStage(title, steps))
    return stages


def label_of(step: Step) -> str:
    """Return what a person calls a file: its name without suffixes, or that of its folder."""
    *folders, name = step.path.split("/")
    return folders[-1] if name in {"manifest.json", "ledger.json"} else name.partition(".")[0]
