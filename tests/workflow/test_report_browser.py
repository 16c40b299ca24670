"""The report in a real browser: nothing asked for, nothing complained of, nothing cut off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from tests.pipeline.report.zoo import Zoo, report_spec
from tests.workflow.browser import CHROMIUM, DRIVER, Browser, start_browser

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine"
)

OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Texts of drawings with their height on the screen, those that stick out of their drawing marked.
TEXTS = """
return [...document.querySelectorAll('svg text')].map(text => {
  const box = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect()
  const size = parseFloat(getComputedStyle(text).fontSize) * all.width /
    text.ownerSVGElement.viewBox.baseVal.width
  const out = Math.max(all.left - box.left, box.right - all.right, box.bottom - all.bottom, 0)
  return [text.textContent, size, out]
})
"""
# Contrast of every element with text of its own against the nearest painted background.
CONTRASTS = """
const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(v => linear(v / 255))
  return 0.2126 * r + 0.7152 * g + 0.0722 * b }
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor
  if (!c.endsWith(', 0)')) return c } return 'rgb(255, 255, 255)' }
return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
  [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
  const style = getComputedStyle(e), drawn = e instanceof SVGElement
  const [a, b] = [light(drawn ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x)
  return [e.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)] })
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    zoo = Zoo(tmp_path_factory.mktemp("zoo")).build()
    folders = ["--results", str(zoo.results), "--data", str(zoo.folder / "data")]
    out = zoo.folder / "page.html"
    arguments = ["report", "--spec", json.dumps(report_spec()), *folders, "--out", str(out)]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with start_browser(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(page)
        yield browser


def test_no_complaint_and_no_request_to_anybody(browser: Browser, page: Path) -> None:
    browser.open(page)
    asked = browser.requests()
    assert asked and all(url.startswith(("file://", "data:")) for url in asked)
    assert set(filter(lambda url: url.startswith("file:"), asked)) == {page.as_uri()}
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_window(browser: Browser, width: int) -> None:
    browser.emulate(width)
    assert browser.run(OVERFLOW) == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_texts_in_plots_are_large_enough_and_inside(browser: Browser, width: int) -> None:
    browser.emulate(width)
    texts = browser.run(TEXTS)
    assert len(texts) > 40
    assert [text for text in texts if text[1] < 9 or text[2] > 1] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(browser: Browser, scheme: str) -> None:
    browser.emulate(1280, scheme=scheme)
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    found = browser.run(CONTRASTS)
    assert len(found) > 200
    assert [pair for pair in found if pair[1] < 4.5] == []


def test_chinese_has_glyphs(browser: Browser) -> None:
    """A missing glyph is a box of one shape; real characters differ from one another."""
    script = """
    const font = getComputedStyle(document.body).fontFamily
    const draw = text => { const c = document.createElement('canvas'); c.width = c.height = 40
      const g = c.getContext('2d'); g.font = '32px ' + font; g.fillText(text, 2, 34)
      return g.getImageData(0, 0, 40, 40).data.join('') }
    return [draw('\\u8d28') !== draw('\\u4e00'), draw('\\u8d28') !== draw('\\ue000')]
    """
    shapes = browser.run(script)
    if not shapes[0]:
        pytest.skip("no font with Chinese characters on this machine")
    assert shapes == [True, True]


def test_every_figure_of_the_page_can_be_printed(browser: Browser, tmp_path: Path) -> None:
    browser.emulate(1280)
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.pdf").stat().st_size > 50_000


def test_hostile_text_runs_nothing(
    browser: Browser, page: Path, tmp_path: Path, capsys: Any
) -> None:
    bad = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    recipes = [{"name": "tiny", "description": bad, "unavailable": bad, "command": bad}]
    spec = {
        "title": "Hostile",
        "description": bad,
        "recipes": [*report_spec()["recipes"], *recipes],
    }
    results, out = page.parent / "results", tmp_path / "hostile.html"
    arguments = ["--results", str(results), "--data", str(page.parent / "data"), "--out", str(out)]
    assert main(["report", "--spec", json.dumps(spec), *arguments]) == 0
    browser.open(out)
    assert browser.run("return document.title") == "Hostile"
    assert browser.run("return document.images.length + document.scripts.length") == 0
    assert browser.complaints() == []
    browser.open(page)
