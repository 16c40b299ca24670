"""The page of the zoo: groups, cells, and that it is Markdown whatever descriptions say."""

from pathlib import Path

import pytest
import yaml

from pipeline.config import load_catalog
from pipeline.zoo_table import zoo_table
from tests.pipeline.test_catalog_needs import ZOO


@pytest.fixture
def page(tmp_path: Path) -> str:
    small = dict(ZOO["zoo/general"], instances="task", description="a|b")
    published = [
        {"dataset": "private", "value": 93.0, "metric": "f1", "source": "x"},
        {"dataset": "private", "value": 88.1, "part": "dev", "source": "x"},
    ]
    random = dict(ZOO["zoo/random"], published=published)
    zoo = {**ZOO, "zoo/general_mini": small, "zoo/random": random}
    for name, section in zoo.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(section))
    return zoo_table(load_catalog(tmp_path))


def test_each_recipe_stands_in_one_group(page: str):
    groups = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    assert list(groups) == [
        "Models whose text or weights a user supplies",
        "Models of text at hand",
        "Small twins",
        "Data sets",
    ]
    for name, group in {"general": 0, "foreign": 0, "random": 1, "general_mini": 2}.items():
        held = [f"\n| `{name}` |" in part for part in groups.values()]
        assert held == [number == group for number in range(4)], name


def test_cells(page: str):
    lines = page.split("\n")
    assert "| `special` |  | tiny | lm | 4 x 8 | general |  |" in lines
    assert "| `foreign` |  | tiny |  |  | huggingface |  |" in lines
    assert "| `random` |  | tiny |  |  | random | private f1: 93, private dev 88.1 |" in lines
    assert "| `general_mini` | a\\|b | tiny | lm | 4 x 8 | random |  |" in lines
    assert "| news.txt, one text a line | `general`, `special` |" in lines
