"""What a recipe may ask its model: one text for each probe, names that are safe in paths."""

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.recipes import Recipe
from pipeline.spec import validate

TRAINED: dict[str, Any] = {
    "architecture": "lstm",
    "instances": "lines",
    "targets": ["lm"],
    "optimization": {"total_steps": 4, "checkpoint_steps": 2},
}
WORDS = {"probe": {"name": "neighbours", "top": 5}, "lines": ["好", "书"]}


def recipe(**probes: Any) -> Recipe:
    return validate(Recipe, {**TRAINED, "probes": probes}, "zoo/small.yaml")


def test_a_probe_has_options_and_lines_or_a_corpus() -> None:
    tags = {"probe": "tags", "corpus": "tagged"}
    found = recipe(words=WORDS, tags=tags, sentence={**WORDS, "lines": ["很好\t好", "-好\t好"]})
    assert found.probes["words"].probe.section() == {"name": "neighbours", "top": 5}
    assert found.probes["tags"].probe.name == "tags" and found.probes["tags"].lines == []


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({**WORDS, "line": []}, ".line: unknown key; did you mean 'lines'? known: corpus, lines, "),
        ({"probe": "neighbors", "lines": ["好"]}, ".probe.name: input should be 'cloze', 'gene"),
        ({"probe": "features", "lines": ["好"]}, ".probe.name: input should be 'cloze', 'gene"),
        ({"probe": "cloze"}, ": cloze reads lines; give that, and no corpus"),
        ({**WORDS, "corpus": "x"}, ": neighbours reads lines; give that, and no corpus"),
        ({**WORDS, "probe": "tags"}, ": tags reads corpus; give that, and no lines"),
        ({**WORDS, "lines": []}, ".lines: list should have at least 1 item"),
        ({**WORDS, "lines": ["好"] * 101}, ".lines: list should have at most 100 items"),
        ({**WORDS, "lines": [3]}, ".lines.0: input should be a valid string"),
        ({"probe": "tags", "corpus": "../x"}, ".corpus: string should match pattern"),
        *(
            ({**WORDS, "lines": [line]}, ".lines.0: a line is text without line breaks or control")
            for line in ("好\n书", "好\r", "\0", "\x1b[31m", "", " \t")
        ),
    ],
)
def test_what_cannot_be_asked(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        recipe(words=section)
    assert raised.value.problems[0].startswith(f"zoo/small.yaml: probes.words{problem}")


@pytest.mark.parametrize("name", ["../words", "two words", "$(id)", ".words", "a/b", ""])
def test_names_of_probes_become_parts_of_paths(name: str) -> None:
    with pytest.raises(ConfigError, match="string should match pattern"):
        recipe(**{name: WORDS})


def test_without_a_model_nothing_can_be_asked() -> None:
    random = {"architecture": "lstm", "vocabulary": "v", "finetune": {"starts": ["random"]}}
    with pytest.raises(ConfigError, match="probes: without pre-training or import there is no"):
        validate(Recipe, {**random, "probes": {"words": WORDS}}, "zoo/small.yaml")
