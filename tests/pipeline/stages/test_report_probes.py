"""`report` through the command line: answers of probes, measured figures and speeds on the page."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact, read_tensor_stamp
from tests.pipeline.report.test_speeds import BASE, TINY
from tests.pipeline.report.test_speeds import write as write_speeds
from tests.pipeline.report.zoo import Zoo, report_spec

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e&\"'"
SPEED = {"machine": "BERT base, CPU", "tokens_per_second": 276.0, "source": "table 4"}
RATIO = {"model": "bert_tiny", "than": "bert_base", "times": 12.0, "source": "updates"}


def report(zoo: Zoo, *more: object, spec: dict[str, Any] | None = None) -> int:
    paths = ["--results", zoo.results, "--data", zoo.folder / "data"]
    out = ["--out", zoo.folder / "page.html", "--json", zoo.folder / "page.json"]
    text = json.dumps(report_spec() if spec is None else spec)
    return main(["report", "--spec", text, *map(str, [*paths, *out, *more])])


def section(zoo: Zoo, name: str) -> str:
    """Return the text of a section without tags and runs of blanks; empty if it is not there."""
    page = (zoo.folder / "page.html").read_text(encoding="utf-8")
    body = page.partition(f'<section id="{name}"')[2].partition("</section>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def weights(zoo: Zoo, recipe: str) -> str:
    path = zoo.results / f"4_average/{recipe}.safetensors"
    return str(read_tensor_stamp(path, verify=False)["weights"])


def refused(zoo: Zoo, capsys: pytest.CaptureFixture[str], code: int, *more: object) -> list[str]:
    capsys.readouterr()
    assert report(zoo, *more) == code
    assert not (zoo.folder / "page.html").exists() and not (zoo.folder / "page.json").exists()
    return capsys.readouterr().err.splitlines()


# Answers -----------------------------------------------------------------------------------------


def test_answers_are_shown(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(zoo) == 0
    assert capsys.readouterr().err == ""
    text = section(zoo, "inside")
    assert "好 棒 0.712 赞 0.654 书 本 0.501 册 0.448" in text
    assert "房间很 好 ，下次还来 棒 0.800 大 0.700" in text
    assert "这本书很[MASK] 好 0.61 差 0.08" in text
    assert "这本书 很好看，值得一读" in text
    assert "all 3 63.3 35.1 n 2 70.0 ns 1 50.0" in text
    assert "unchecked" not in text


def test_answers_are_part_of_the_figures_and_of_the_lineage(zoo: Zoo) -> None:
    assert report(zoo) == 0
    recipe = read_json_artifact(zoo.folder / "page.json", "report")["recipes"][0]
    assert [answers["name"] for answers in recipe["answers"]] == ["texts", "characters"]
    assert "6_probe/reviews_lstm/characters.json" in [step["path"] for step in recipe["lineage"]]
    assert "6_probe/reviews_lstm/texts.json" in section(zoo, "lineage")


def test_without_a_spec_answers_are_found(zoo: Zoo) -> None:
    assert report(zoo, spec={}) == 0
    assert "棒 0.712" in section(zoo, "inside")


def test_a_missing_answer_is_a_gap_and_a_warning(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = zoo.results / "6_probe/reviews_lstm/texts.jsonl"
    missing.unlink()
    assert report(zoo) == 0
    assert capsys.readouterr().err == f"warning: {missing}: missing; shown as a gap\n"
    assert "很好看" not in section(zoo, "inside") and "棒 0.712" in section(zoo, "inside")


def test_answers_of_another_model_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.probe("reviews_lstm", "texts", weights(zoo, "reviews_bert_tiny"))
    (line,) = refused(zoo, capsys, 76)
    average = zoo.results / "4_average/reviews_lstm.safetensors"
    assert line.startswith(f"error: {path}: answers of model ") and f"but {average} is " in line


def test_edited_answers_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.results / "6_probe/reviews_lstm/characters.jsonl"
    path.chmod(0o644)
    path.write_text(path.read_text("utf-8").replace("0.7123", "0.9123"), "utf-8")
    (line,) = refused(zoo, capsys, 76)
    assert line.startswith(f"error: {path}: digest ") and "characters.json says " in line


def test_answers_whose_model_is_gone_are_marked_unchecked(zoo: Zoo) -> None:
    shutil.rmtree(zoo.results / "4_average")
    assert report(zoo) == 0
    assert section(zoo, "inside").count("unchecked") == 2


def test_texts_and_tokens_are_inert(zoo: Zoo) -> None:
    lstm, bert = (weights(zoo, name) for name in ("reviews_lstm", "reviews_bert_tiny"))
    zoo.probe("reviews_lstm", "texts", lstm, prompt=HOSTILE, continuation=HOSTILE)
    zoo.probe("reviews_lstm", "characters", lstm, word=HOSTILE, neighbours={HOSTILE: 0.5})
    zoo.probe("reviews_bert_tiny", "gaps", bert, text=HOSTILE, predictions={HOSTILE: 0.5})
    zoo.probe("reviews_bert_tiny", "in_sentences", bert, sentence=HOSTILE, word="onerror")
    zoo.probe("reviews_bert_tiny", "tags", bert, tag=HOSTILE)
    assert report(zoo) == 0
    page = (zoo.folder / "page.html").read_text(encoding="utf-8")
    assert "<img" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;\\x1b[31m\\u202e") >= 8
    assert "&lt;img src=x <strong>onerror</strong>=alert(1)&gt;" in page


# Measured elsewhere ------------------------------------------------------------------------------


def figures(zoo: Zoo) -> Path:
    """Return the JSON form of a report on the zoo in which each recipe has a command."""
    spec = report_spec()
    for recipe in spec["recipes"]:
        recipe["command"] = f"make {recipe['name']}"
    assert report(zoo, spec=spec) == 0
    (zoo.folder / "page.json").rename(zoo.folder / "figures.json")
    (zoo.folder / "page.html").unlink()
    return zoo.folder / "figures.json"


def forget(zoo: Zoo, recipe: str) -> None:
    """Remove the results of a recipe."""
    for stage in ("3_pretrain", "5_finetune", "6_evaluate", "6_probe"):
        shutil.rmtree(zoo.results / stage / recipe)


def test_what_was_measured_elsewhere_is_marked_with_its_command(zoo: Zoo) -> None:
    path = figures(zoo)
    forget(zoo, "reviews_lstm")
    assert report(zoo, "--figures", path) == 0
    told = section(zoo, "published")
    assert "Measured elsewhere" in told and "reviews_lstm : make reviews_lstm" in told
    assert "make reviews_bert_tiny" not in told
    assert "reviews_lstm measured elsewhere Nearest neighbours 好 棒" in section(zoo, "inside")
    assert "reviews_lstm measured elsewhere 83.15" in section(zoo, "scores")
    assert "reviews_bert_tiny measured" not in section(zoo, "scores")


def test_costs_elsewhere_are_no_costs_of_this_run(zoo: Zoo) -> None:
    assert report(zoo) == 0
    both = section(zoo, "run")
    path = figures(zoo)
    forget(zoo, "reviews_lstm")
    assert report(zoo, "--figures", path) == 0
    here = section(zoo, "run")
    assert "pretrain 8 " in both and "pretrain 4 " in here
    assert "reviews_lstm train 10,234 – measured elsewhere, median" in here


def test_figures_of_recipes_that_are_not_listed_stay_away(zoo: Zoo) -> None:
    path = figures(zoo)
    spec = report_spec()
    del spec["recipes"][1]
    assert report(zoo, "--figures", path, spec=spec) == 0
    page = (zoo.folder / "page.html").read_text(encoding="utf-8")
    assert "reviews_bert_tiny" not in page and "elsewhere" not in page


def test_no_figures_and_no_speeds_are_no_mistake(zoo: Zoo) -> None:
    assert report(zoo, "--figures", "--speeds") == 0


def test_damaged_figures_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = figures(zoo)
    path.chmod(0o644)
    path.write_text(path.read_text("utf-8").replace("0.8312", "0.9312"), "utf-8")
    (line,) = refused(zoo, capsys, 76, "--figures", path)
    assert line.startswith(f"error: {path}: content has digest")


# Speeds ------------------------------------------------------------------------------------------


def speeds(zoo: Zoo, *items: dict[str, Any]) -> Path:
    return write_speeds(zoo.folder, list(items))


def test_speeds_stand_beside_the_published_ones(zoo: Zoo) -> None:
    infer = {**TINY, "what": "infer", "ranks": 1, "tokens_per_second": 5000}
    path = speeds(zoo, TINY, BASE, infer)
    spec = report_spec(speed=[SPEED], ratios=[RATIO])
    assert report(zoo, "--speeds", path, spec=spec) == 0
    text = section(zoo, "run")
    assert "reviews_lstm train 10,234 – this run, median" in text
    assert "bert_tiny train 1,200 12 2 cores, 2 ranks" in text
    assert "bert_tiny infer 5,000 12 2 cores, 1 rank" in text
    assert "BERT base, CPU train 276 – table 4" in text
    assert "bert_tiny bert_base 12× 12.0× 2 cores, 2 ranks, train updates" in text
    assert "Measured with python -m bench . Tokens" in text
    record = read_json_artifact(zoo.folder / "page.json", "report")
    assert [speed["what"] for speed in record["speeds"]] == ["train", "train", "infer"]


def test_only_speeds_of_listed_networks_are_shown(zoo: Zoo) -> None:
    path = speeds(zoo, TINY, BASE)
    assert report(zoo, "--speeds", path) == 0
    assert "2 cores" not in section(zoo, "run")
    spec = report_spec()
    spec["recipes"][0]["architecture"] = "bert_base"
    assert report(zoo, "--speeds", path, spec=spec) == 0
    assert section(zoo, "run").count("2 cores") == 1
    assert "bert_base train 100 12 2 cores" in section(zoo, "run")


def test_a_ratio_that_nobody_measured_is_a_gap(zoo: Zoo) -> None:
    assert report(zoo, spec=report_spec(ratios=[RATIO])) == 0
    assert "bert_tiny bert_base 12× – updates" in section(zoo, "run")


def test_wrong_speeds_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = speeds(zoo, {**TINY, "spread": "much"})
    (line,) = refused(zoo, capsys, 65, "--speeds", path)
    assert line.startswith(f"error: {path}: speeds.0.spread: input should be a valid number")
    missing = zoo.folder / "none.json"
    assert refused(zoo, capsys, 66, "--speeds", missing) == [f"error: {missing}: no such file"]
