"""What every probe keeps: one file, one name, options that explain themselves."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import pipeline.probes
from pipeline.probes import Probe, join_tokens
from pipeline.registry import PROBES, TARGETS

FILES = sorted(path.stem for path in Path(pipeline.probes.__file__).parent.glob("[a-z]*.py"))


def test_every_file_is_a_probe_of_its_name():
    assert PROBES.names() == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_probe_explains_itself_and_its_options(name):
    probe = PROBES.get(name)
    assert issubclass(probe, Probe)
    assert probe.__module__ == f"pipeline.probes.{name}"
    assert inspect.getdoc(probe) and import_module(probe.__module__).__doc__
    for option, field in probe.Config.model_fields.items():
        assert field.description, f"{name}.{option}"
    assert set(probe.files) <= set(probe.Config.model_fields)
    assert not probe.needs or probe.needs in TARGETS.names()


@pytest.mark.parametrize(
    ("tokens", "tokenizer", "text"),
    [
        (["我", "看", "书"], "bert", "我看书"),
        (["我", "go", "book", "##s", "，", "go"], "bert", "我go books，go"),
        (["3", "本", "books"], "bert", "3本books"),
        (["我", "[MASK]", "书"], "bert", "我[MASK]书"),
        (["##s", "书"], "bert", "s书"),
        (["a", "b"], "char", "ab"),
        (["看书", "人"], "word", "看书人"),
        (["看书", "人"], "space", "看书 人"),
        ([], "bert", ""),
    ],
)
def test_tokens_become_text(tokens, tokenizer, text):
    assert join_tokens(tokens, tokenizer) == text
