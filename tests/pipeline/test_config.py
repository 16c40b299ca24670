"""config/ read as a whole: what is refused, in which words, and all of it together."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.catalog import Catalog
from pipeline.config import load_catalog
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = {
    "config.yaml": "recipes: [small]\ndatasets: [reviews]\n",
    "corpora/text.yaml": "sources: [{path: text.txt}]\n",
    "datasets/reviews.yaml": """
task: classify
files: {train: {path: a.tsv}, dev: {path: b.tsv}, test: {path: c.tsv}}
finetune: {epochs: 2, learning_rate: 1e-3}
""",
    "vocabularies/text.yaml": "built: {corpora: [text], size: 100}\n",
    "instances/lines.yaml": "{kind: lines, corpora: [text], vocabulary: text}\n",
    "architectures/lstm.yaml": "{embedding: word, encoder: {name: lstm, hidden_size: 8}}\n",
    "zoo/small.yaml": """
instances: lines
architecture: lstm
targets: [lm]
optimization: {total_steps: 20, checkpoint_steps: 10, learning_rate: 1e-3}
""",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of a config folder in which some files are replaced or added."""

    def write(**changes: str | bytes) -> Path:
        folder = tmp_path / "config"
        for name, text in {**FILES, **changes}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write


def problems(folder: Path, code: int = 78) -> list[str]:
    """Return what the stage check says of a folder, without `error: ` and the folder's name."""
    before = sorted(folder.rglob("*"))
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        assert main(["check", "--config", str(folder)]) == code
    lines = stderr.getvalue().splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert sorted(folder.rglob("*")) == before
    return [line.removeprefix("error: ").replace(f"{folder}/", "") for line in lines]


def replaced(name: str, old: str, new: str) -> dict[str, str]:
    assert old in FILES[name]
    return {name: FILES[name].replace(old, new)}


def test_a_sound_folder_is_read(write: Callable[..., Path]) -> None:
    catalog = load_catalog(write())
    assert isinstance(catalog, Catalog)
    assert catalog.zoo["small"].steps == [10, 20]
    assert catalog.vocabulary_of("small") == "text"


@pytest.mark.parametrize(
    ("name", "old", "new", "line"),
    [
        # C1 unknown key, with the nearest known one
        (
            "zoo/small.yaml",
            "learning_rate: 1e-3",
            "learning_rat: 1e-3",
            "zoo/small.yaml: optimization.learning_rat: unknown key; did you mean 'learning_rate'?",
        ),
        # C2 a key twice
        (
            "zoo/small.yaml",
            "architecture: lstm",
            "architecture: lstm\narchitecture: gru",
            "zoo/small.yaml:4: key 'architecture' stands twice, in lines 3 and 4",
        ),
        # C4 not a number, out of range
        (
            "zoo/small.yaml",
            "1e-3",
            "fast",
            "zoo/small.yaml: optimization.learning_rate: input should be a valid number",
        ),
        (
            "zoo/small.yaml",
            "1e-3",
            "-1",
            "zoo/small.yaml: optimization.learning_rate: input should be greater than 0",
        ),
        (
            "zoo/small.yaml",
            "1e-3",
            "0",
            "zoo/small.yaml: optimization.learning_rate: input should be greater than 0, found '0'",
        ),
        (
            "zoo/small.yaml",
            "1e-3",
            ".nan",
            "zoo/small.yaml: optimization.learning_rate: input should be a finite number",
        ),
        # C5 what YAML turns into something else
        (
            "vocabularies/text.yaml",
            "built",
            "tokenizer: no\nbuilt",
            "vocabularies/text.yaml:1: 'no' means different things to YAML readers; quote it",
        ),
        (
            "zoo/small.yaml",
            "lines",
            "010",
            "zoo/small.yaml:2: '010' means different things to YAML readers; quote it",
        ),
        (
            "zoo/small.yaml",
            "architecture: lstm",
            "architecture: on",
            "zoo/small.yaml:3: 'on' means different things to YAML readers; quote it",
        ),
        (
            "zoo/small.yaml",
            "total_steps: 20",
            "total_steps: 12:30:00",
            "zoo/small.yaml:5: '12:30:00' means different things to YAML readers; quote it",
        ),
        # C8 steps that do not fit, with the nearest that do
        (
            "zoo/small.yaml",
            "checkpoint_steps: 10",
            "checkpoint_steps: 7",
            "zoo/small.yaml: optimization: checkpoint_steps 7 does not divide total_steps 20",
        ),
        (
            "zoo/small.yaml",
            "total_steps",
            "batch_size: 4, micro_batches: 8, total_steps",
            "zoo/small.yaml: optimization: micro_batches 8 exceeds batch_size 4",
        ),
        # A26 the same corpus twice
        (
            "instances/lines.yaml",
            "[text]",
            "[text, text]",
            "instances/lines.yaml: corpora.1: 'text' stands at corpora.0 too",
        ),
        # Names of files that are not there
        (
            "zoo/small.yaml",
            "architecture: lstm",
            "architecture: lstn",
            "zoo/small.yaml: architecture: no file lstn.yaml in architectures; "
            "did you mean 'lstm'? known: lstm",
        ),
        (
            "zoo/small.yaml",
            "architecture",
            "probes: {kinds: {probe: tags, corpus: texd}}\narchitecture",
            "zoo/small.yaml: probes.kinds.corpus: no file texd.yaml in corpora; "
            "did you mean 'text'? known: text",
        ),
        (
            "zoo/small.yaml",
            "architecture",
            "faster: {than: lstn, times: 2, source: a table}\narchitecture",
            "zoo/small.yaml: faster.than: no file lstn.yaml in architectures; "
            "did you mean 'lstm'? known: lstm",
        ),
        (
            "config.yaml",
            "[small]",
            "[smal]",
            "config.yaml: recipes.0: no file smal.yaml in zoo; did you mean 'small'? known: small",
        ),
        # Sections that exclude or need one another
        (
            "zoo/small.yaml",
            "targets: [lm]\n",
            "",
            "zoo/small.yaml: targets: missing; instances, targets, optimization go together",
        ),
        (
            "zoo/small.yaml",
            "targets",
            "average: {last: 3}\ntargets",
            "zoo/small.yaml: average.last: 3 of 2 checkpoints",
        ),
        (
            "instances/lines.yaml",
            "kind",
            "tokenizer: char, kind",
            "instances/lines.yaml: tokenizer: belongs to the vocabulary; state it there",
        ),
        (
            "datasets/reviews.yaml",
            "epochs: 2",
            "epochs: 0",
            "datasets/reviews.yaml: finetune.epochs: input should be greater than or equal to 1, "
            "found '0'",
        ),
        (
            "config.yaml",
            "recipes",
            "ranks: 3\nrecipes",
            "config.yaml: ranks: input should be 1, 2, 4, 8, 16, 32 or 64, found '3'",
        ),
        (
            "config.yaml",
            "recipes",
            "ranks: 16\nrecipes",
            "config.yaml: ranks: 16 exceeds the 8 micro_batches of recipe small",
        ),
        (
            "config.yaml",
            "recipes",
            "ranks: 2\nnodes: 4\nrecipes",
            "config.yaml: nodes: 2 ranks cannot be spread over 4 nodes",
        ),
        # C16 settings of a newer program
        (
            "config.yaml",
            "recipes",
            "version: 2\nrecipes",
            "config.yaml: version: settings of version 2; this program reads 1, found '2'",
        ),
    ],
)
def test_what_is_refused(
    write: Callable[..., Path], name: str, old: str, new: str, line: str
) -> None:
    found = problems(write(**replaced(name, old, new)))
    assert len(found) == 1, found
    assert found[0].startswith(line), found[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "zoo/small.yaml: top level is empty; it must be keys with values"),
        ("- a\n- b\n", "zoo/small.yaml: top level is a list; it must be keys with values"),
        (b"a: \xff\n", "zoo/small.yaml: not UTF-8 at byte 3; save it as UTF-8"),
        ("a: [1, 2\n", "zoo/small.yaml:2: not YAML"),
    ],
)
def test_what_is_no_settings_at_all(
    write: Callable[..., Path], text: str | bytes, line: str
) -> None:
    """C15."""
    assert problems(write(**{"zoo/small.yaml": text}))[0].startswith(line)


TAG = "tag:yaml.org,2002:python/object/apply:os.system"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &x 1\nb: *x\n", "zoo/small.yaml:1: anchors and aliases are not allowed"),
        ("a: !!python/object/apply:os.system [id]\n", f"zoo/small.yaml:1: tag '{TAG}' is not "),
        ("a: " + "b" * 2**20, "zoo/small.yaml: 1048579 characters of YAML; at most 1000000"),
    ],
)
def test_what_is_unsafe(write: Callable[..., Path], text: str, line: str) -> None:
    """C9: anchors, tags, size."""
    (found,) = problems(write(**{"zoo/small.yaml": text}), 77)
    assert found.startswith(line)


# The last four: a Cyrillic letter that looks Latin, blanks at the end, a full-width letter, length.
NAMES = ["a..b", "$(touch x)", "ä", "x" * 65, "end.", "-first", "a b", "sm\u0430ll", "end ", "ａ"]


@pytest.mark.parametrize("name", [*NAMES, "x" * 240])
def test_names_of_files(write: Callable[..., Path], name: str) -> None:
    """C10, C12: a name becomes part of paths and of command lines."""
    found = problems(write(**{f"zoo/{name}.yaml": FILES["zoo/small.yaml"]}))
    assert "a name is 1 to 64 ASCII letters" in found[0]


def test_numbers_may_be_written_with_exponents(write: Callable[..., Path]) -> None:
    """C3: PyYAML alone would read 1e-3 as text."""
    assert load_catalog(write()).pretrain_spec("small")["optimization"]["learning_rate"] == 0.001


def test_all_problems_are_told_together(write: Callable[..., Path]) -> None:
    changes = replaced("zoo/small.yaml", "architecture: lstm", "architecture: gru\nsped: 1")
    changes |= replaced("instances/lines.yaml", "vocabulary: text", "vocabulary: texts")
    found = problems(write(**changes, **{"corpora/empty.yaml": ""}))
    assert len(found) == 3
    assert [line.partition(":")[0] for line in sorted(found)] == [
        "corpora/empty.yaml", "instances/lines.yaml", "zoo/small.yaml",
    ]  # fmt: skip


def test_a_file_with_the_wrong_ending_is_told(write: Callable[..., Path]) -> None:
    found = problems(write(**{"zoo/other.yml": FILES["zoo/small.yaml"]}))
    assert found == ["zoo/other.yml: is not read; name it other.yaml"]


def test_chains_of_recipes(write: Callable[..., Path]) -> None:
    second = FILES["zoo/small.yaml"] + "initial: small\n"
    catalog = load_catalog(write(**{"zoo/second.yaml": second}))
    assert catalog.chain("second") == ["second", "small"]
    looped = {
        "zoo/second.yaml": second,
        "zoo/small.yaml": FILES["zoo/small.yaml"] + "initial: second\n",
    }
    assert problems(write(**looped)) == [
        "zoo/second.yaml: initial: starts from itself: second <- small <- second",
        "zoo/small.yaml: initial: starts from itself: small <- second <- small",
    ]


def test_a_chain_keeps_its_vocabulary(write: Callable[..., Path]) -> None:
    changes = {
        "vocabularies/other.yaml": "built: {corpora: [text]}\n",
        "instances/other.yaml": "{kind: lines, corpora: [text], vocabulary: other}\n",
        "zoo/second.yaml": FILES["zoo/small.yaml"].replace("instances: lines", "instances: other")
        + "initial: small\n",
    }
    assert problems(write(**changes)) == [
        "zoo/second.yaml: initial: small has vocabulary text, this recipe other"
    ]


SECOND = FILES["zoo/small.yaml"] + "baseline: small\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"zoo/second.yaml": SECOND + "finetune: {epochs: 4}\n"},
            "small is fine-tuned on reviews otherwise: finetune.epochs: 2 -> 4",
        ),
        (
            {"zoo/second.yaml": SECOND + "finetune: {seeds: [7, 8]}\n"},
            "small has no random start on reviews with seed 8",
        ),
        (
            {"zoo/second.yaml": SECOND,
             "zoo/small.yaml": FILES["zoo/small.yaml"] + "baseline: third\n",
             "zoo/third.yaml": FILES["zoo/small.yaml"]},
            "small has a baseline itself, third; name that",
        ),
        (
            {"zoo/second.yaml": SECOND.replace("lines", "other"),
             "vocabularies/other.yaml": "built: {corpora: [text]}\n",
             "instances/other.yaml": "{kind: lines, corpora: [text], vocabulary: other}\n"},
            "small has vocabulary text, this recipe other",
        ),
    ],
)  # fmt: skip
def test_a_baseline_is_fine_tuned_alike(
    write: Callable[..., Path], changes: dict[str, str], problem: str
) -> None:
    assert problems(write(**changes)) == [f"zoo/second.yaml: baseline: {problem}"]


def test_overrides_win_and_are_checked(write: Callable[..., Path]) -> None:
    assert load_catalog(write(), {"ranks": 2}).config.ranks == 2
    with pytest.raises(ConfigError, match="rnks: unknown key; did you mean 'ranks'"):
        load_catalog(write(), {"rnks": 2})


def test_the_command_line_tells_all(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(**replaced("zoo/small.yaml", "lstm", "gru"))
    assert main(["check", "--config", str(folder)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"error: {folder}/zoo/small.yaml: architecture: no file gru.yaml in "
        f"{folder}/architectures; known: lstm"
    ]


def test_the_shipped_settings_are_read_quickly() -> None:
    """Every job of a cluster reads them again; the bound is loose, the aim is 0.2 s."""
    began = time.perf_counter()
    catalog = load_catalog(ROOT / "config")
    seconds = time.perf_counter() - began
    assert catalog.config.recipes
    files = len(list((ROOT / "config").rglob("*.yaml")))
    assert seconds < 1 + 0.02 * files, f"{files} files took {seconds:.2f} s"
