"""The rules: what the graph is, what they say to a shell, how fast a large zoo is planned."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.workflow.zoo import ROOT, SNAKEMAKE, TINY, Zoo

RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
# What the shell reads as it stands: constant text of the rule itself.
UNQUOTED = {"resources.launch"}


def shell_texts() -> list[tuple[str, str]]:
    """Return (file, text of a shell: section) of all rules."""
    found = []
    for path in RULES:
        for block in re.findall(r"\n    shell:\n((?:        .*\n)+)", path.read_text()):
            found.append((path.name, "".join(re.findall(r'"(.*)"', block))))
    return found


def test_every_rule_calls_a_stage() -> None:
    texts = shell_texts()
    assert len(texts) >= 11
    for name, text in texts:
        assert re.match(r"exec (\{resources\.launch\} )?python -m pipeline \w+ ", text), (
            name,
            text,
        )


def test_every_placeholder_is_quoted() -> None:
    """Settings are text to the shell: `$(...)` in a YAML file runs nothing."""
    for name, text in shell_texts():
        for placeholder in re.findall(r"\{([^}]*)\}", text):
            field, _, conversion = placeholder.partition(":")
            assert not field.startswith("config"), f"{name}: {placeholder}: pass it as a param"
            assert conversion == "q" or field in UNQUOTED, f"{name}: {{{placeholder}}}: add :q"


def test_rules_say_how_they_run() -> None:
    for path in RULES:
        text = path.read_text()
        for rule in re.findall(r"\nrule (\w+):\n((?:.*\n)*?)(?=\n\n|\Z)", "\n" + text):
            name, body = rule
            assert 'conda:\n        "../../environment.yml"' in body, name
            assert "    log:\n" in body, name
            assert not re.search(r"\n    (run|script|retries|shadow|cache):", body), name
            assert "protected(" not in body and "ancient(" not in body, name


def test_the_graph_of_the_rules(zoo: Zoo) -> None:
    """The README shows this picture; a change of the graph changes it there too."""
    zoo.change("zoo/tiny_lstm", "optimization.total_steps", 9)
    printed = zoo.snakemake("--rulegraph", "mermaid-js")
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    assert mermaid_edges(printed) == mermaid_edges(shown)


def mermaid_edges(text: str) -> set[tuple[str, str]]:
    """Return the arrows, by the names of the rules."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    return {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text)}


def test_what_is_only_passed_is_temporary(zoo: Zoo) -> None:
    zoo.change("zoo/tiny_lstm", "optimization.checkpoint_steps", 2)
    output = zoo.snakemake("--dry-run")
    removed = set(re.findall(r"Would remove temporary output (\S+)", output))
    folder = "results/3_pretrain/tiny_lstm"
    assert removed == {
        *(f"{folder}/step_0000000{step}.optimizer.safetensors" for step in (2, 4, 6)),
        *(f"{folder}/step_0000000{step}.safetensors" for step in (2, 4)),
    }
    zoo.change("zoo/tiny_lstm", "keep_checkpoints", "all")
    assert "Would remove temporary" not in zoo.snakemake("--dry-run")


def test_a_step_that_is_none_has_no_rule(zoo: Zoo) -> None:
    output = zoo.snakemake("results/3_pretrain/tiny_lstm/step_00000005.safetensors", check=False)
    assert "No rule to produce" in output


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("recipes", ["tiny_lstn"], "did you mean 'tiny_lstm'"),
        ("rank", 2, "config/config.yaml: rank: unknown key; did you mean 'ranks'"),
        ("nodes", 3, "nodes: 2 ranks cannot be spread over 3 nodes"),
    ],
)
def test_wrong_settings_stop_before_anything_runs(
    zoo: Zoo, key: str, value: object, line: str
) -> None:
    zoo.change("config", key, value)
    output = zoo.snakemake(check=False)
    assert line in output
    assert not (zoo.folder / "results").exists()


def test_rows_are_looked_for_in_the_corpora_of_pre_training(zoo: Zoo) -> None:
    """Those of the whole chain, each once; a random start has seen none."""
    zoo.write("corpora/more", {**TINY["corpora/reviews"], "duplicates": "drop"})
    zoo.write("instances/more", {**TINY["instances/lines"], "corpora": ["more", "reviews"]})
    second = {**TINY["zoo/tiny_lstm"], "initial": "tiny_lstm", "instances": "more"}
    zoo.write("zoo/second", second)
    for start, corpora in (
        ("pretrained", " --corpus data/corpora/more.txt data/corpora/reviews.txt"),
        ("random", ""),
    ):
        target = f"results/6_evaluate/second/reviews/{start}_seed_7.json"
        shown = zoo.snakemake("--dry-run", "--printshellcmds", target)
        line = next(line for line in shown.splitlines() if "pipeline evaluate" in line)
        assert f"--data data/datasets/reviews/test.tsv{corpora} --out {target}" in " ".join(
            line.split()
        )


def test_names_cannot_leave_their_folder(zoo: Zoo) -> None:
    """S8: wildcards are the names in config/ and nothing else."""
    for target in (
        "results/6_probe/tiny_lstm/../../../escaped.json",
        "results/4_average/../../escaped.safetensors",
        "results/4_average/$(id).safetensors",
    ):
        output = zoo.snakemake(target, check=False)
        assert "MissingRuleException" in output, output
    assert not list(zoo.folder.parent.glob("escaped*"))


def test_settings_are_text_to_the_shell(zoo: Zoo) -> None:
    """C10: what a shell would run stays a name of a file that is not there."""
    hostile = '$(touch canary)`touch canary`;touch canary\ntouch canary"\'"; touch canary #'
    sources = [{"path": hostile, "label": 1}]
    zoo.change("datasets/reviews", "split.sources", sources)
    output = zoo.snakemake("data/datasets/reviews/train.tsv", check=False)
    assert "Error in rule fetch_dataset" in output
    assert not list(zoo.folder.rglob("canary"))


def test_a_probe_of_another_recipe_has_no_rule(zoo: Zoo) -> None:
    zoo.write("zoo/second", {**TINY["zoo/tiny_lstm"], "probes": {}})
    for target in ("second/words", "tiny_lstm/other"):
        output = zoo.snakemake(f"results/6_probe/{target}.json", check=False)
        assert "No rule to produce" in output or "MissingRuleException" in output, output


def test_measured_files_of_the_repository_reach_the_report(zoo: Zoo, tmp_path: Path) -> None:
    repository, measured = tmp_path / "repository", tmp_path / "repository/docs/measured"
    measured.mkdir(parents=True)
    shutil.copy(ROOT / "Snakefile", repository)
    for name in ("workflow", "pipeline", "environment.yml"):
        (repository / name).symlink_to(ROOT / name)
    for name in ("b.json", "speed.json", "a.json", "README.md"):
        (measured / name).touch()
    command = [SNAKEMAKE, "--snakefile", repository / "Snakefile", "--directory", zoo.folder]
    shown = subprocess.run(
        [*command, "-n", "-p", "results/7_report/report.html"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    figures = f"--figures {measured}/a.json {measured}/b.json --speeds {measured}/speed.json --out"
    assert figures in shown.stdout + shown.stderr


def test_a_zoo_of_a_hundred_recipes_is_planned_quickly(zoo: Zoo) -> None:
    """Aim 10 s on an idle machine (`make bench` shows it); the bound here only catches blunders."""
    recipe = {**TINY["zoo/tiny_lstm"], "optimization": {"total_steps": 100, "checkpoint_steps": 10}}
    names = [f"recipe_{number}" for number in range(100)]
    for name in names:
        zoo.write(f"zoo/{name}", recipe)
    zoo.change("config", "recipes", names)
    planned = zoo.planned()
    assert planned["pretrain"] == 100 and planned["pretrain_passing"] == 900


def test_conda_installs_what_pip_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python {project['requires-python']}" in environment
    assert environment[-1]["pip"] == project["dependencies"]


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lock = (ROOT / "constraints.txt").read_text()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lock.splitlines()}
    names = {re.split(r"[<>=~!]", line)[0].lower().replace("_", "-") for line in asked}
    assert names <= pinned
    assert "torch==2.13.0\n" in lock


def test_the_profile_is_found_by_its_name() -> None:
    assert Path(ROOT / "slurm").resolve() == ROOT / "workflow" / "profiles" / "slurm"
    settings = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
    assert settings["rerun-incomplete"] and settings["slurm-status-command"] == "squeue"
    help_text = subprocess.run(
        [str(SNAKEMAKE), "--help"], capture_output=True, text=True, check=True
    )
    for option in settings:
        assert f"--{option}" in help_text.stdout, option
