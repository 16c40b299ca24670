"""What a report shows: the recipes, the runs that must be there and the published figures.

The workflow resolves this from config/; by hand it may be left out, and the report then shows
whatever it finds.
"""

from typing import Annotated

from pydantic import Field

from pipeline.recipes import STARTS, Published, PublishedRatio, PublishedSpeed, Start
from pipeline.spec import Count, Name, Natural, NonNegative, Settings


class ScoreSet(Settings):
    """The runs of one recipe on one data set; the missing ones of them are shown as gaps."""

    dataset: Name
    """Data set."""
    starts: list[Start] = list(STARTS)
    """From which weights fine-tuning starts."""
    seeds: Annotated[list[Natural], Field(min_length=1)] = [7]
    """Seeds of fine-tuning."""


class ReportedRecipe(Settings):
    """One model of the zoo in the report."""

    name: Name
    """Recipe."""
    description: str = ""
    """One sentence."""
    vocabulary: Name | None = None
    """Its vocabulary, results/1_vocab/{vocabulary}.txt."""
    instances: Name | None = None
    """Its instance set, results/2_instances/{instances}."""
    steps: list[Count] = []
    """Steps at which a checkpoint is published; none for an imported model."""
    initial: Name | None = None
    """Recipe from which its pre-training starts."""
    baseline: Name | None = None
    """Recipe whose random starts are this one's too."""
    architecture: Name | None = None
    """Name of its network, by which measured speeds are found."""
    unavailable: str = ""
    """Why it cannot be run here (no corpus, no weights); its gaps are then expected."""
    command: str = ""
    """Command that makes its figures."""
    scores: list[ScoreSet] = []
    """Runs to be shown."""
    probes: list[Name] = []
    """What its model is asked: results/6_probe/{recipe}/{probe}.json."""
    published: list[Published] = []
    """Figures to be set beside them."""


class ReportedDataset(Settings):
    """One labelled data set in the report."""

    name: Name
    """Data set."""
    description: str = ""
    """One sentence."""
    task: str = ""
    """classify, rank, tag or span."""
    licence: str = ""
    """Licence of the texts."""


class ReportedRatio(PublishedRatio):
    """A published ratio of the speeds of two models."""

    model: Name
    """The faster one's name in config/architectures."""


class ReportSpec(Settings):
    """Settings of the stage report."""

    title: str = "Pretrain Zoo"
    """Heading of the page."""
    description: str = ""
    """A paragraph under the heading."""
    tolerance: NonNegative = 1.0
    """Largest difference, in points, from a published figure that counts as reproduced."""
    recipes: list[ReportedRecipe] = []
    """Recipes, in the order of the tables; none: all that have results."""
    datasets: list[ReportedDataset] = []
    """Data sets, in the order of the tables; those not listed follow by name."""
    speed: list[PublishedSpeed] = []
    """Published speeds, beside which the measured ones are set."""
    ratios: list[ReportedRatio] = []
    """Published ratios of speeds, likewise."""
    examples: Natural = 6
    """Misjudged rows shown for each recipe and data set."""
