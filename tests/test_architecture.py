"""The house rules that a machine can check: floors, names, sizes, safety, what may import torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]

# Imports go down only. Where a floor has several folders, the order within it is the list's:
# a folder may import those before it only if the floor is marked so.
FLOORS = {
    "__init__": 0, "errors": 0, "strict": 0, "artifacts": 0, "registry": 0, "spec": 0,
    "sources": 0, "recipes": 0, "catalog": 0, "config": 0, "zoo_table": 0,
    "text": 1, "instances": 1, "kernels": 1, "layers": 1, "attention": 1, "crf": 1,
    "subencoders": 2, "embeddings": 2, "encoders": 2, "targets": 2, "tasks": 2,
    "model": 3,
    "training": 4, "converters": 4, "probes": 4, "report": 4,
    "stages": 5,
    "__main__": 6,
}  # fmt: skip
SIDEWAYS = {
    ("instances", "text"),
    ("layers", "kernels"),
    ("attention", "kernels"),
    ("attention", "layers"),
    ("converters", "training"),
    ("probes", "training"),
}
TORCH_MODULES = {"kernels", "layers", "attention", "crf"}
FORBIDDEN_NAMES = {"utils", "util", "common", "misc", "helpers", "helper", "base", "tools"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
TORCHLESS_STAGES = ["fetch", "vocab", "instances", "verify", "report"]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room(module: str) -> str:
    """Return the file or folder of `pipeline` that a dotted module name lies in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "pipeline":
                yield from ((node.lineno, f"pipeline.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def name_of(path: Path) -> str:
    return room(".".join(("pipeline", *path.relative_to(PACKAGE).with_suffix("").parts)))


def test_every_module_has_a_floor() -> None:
    unknown = {name_of(path) for path in MODULES} - set(FLOORS)
    assert not unknown, f"give {sorted(unknown)} a floor in {Path(__file__).name}, or a room"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    ours = name_of(path)
    for line, module in imports(parse(path)):
        if module.partition(".")[0] != "pipeline" or module == "pipeline.__version__":
            continue
        theirs = room(module)
        allowed = (
            theirs == ours
            or FLOORS.get(theirs, 0) < FLOORS[ours]
            or FLOORS[ours] == FLOORS.get(theirs, 0) == 0
            or (ours, theirs) in SIDEWAYS
        )
        assert allowed, (
            f"{path}:{line}: {ours} (floor {FLOORS[ours]}) imports {theirs} (floor "
            f"{FLOORS[theirs]}); move what it needs to a lower floor, or pass it as an argument"
        )


@pytest.mark.parametrize("floor", [0, 1])
def test_low_floors_need_few_libraries(floor: int) -> None:
    libraries = {"numpy", "pyarrow", "pydantic", "xxhash", "yaml"}
    libraries |= {"tokenizers", "jieba"} if floor else set()
    allowed = libraries | {"pipeline"} | set(sys.stdlib_module_names)
    for path in MODULES:
        if FLOORS[name_of(path)] != floor or name_of(path) in TORCH_MODULES:
            continue
        for line, module in imports(parse(path)):
            assert module.partition(".")[0] in allowed, f"{path}:{line}: {module} on floor {floor}"


def test_only_stages_draw_on_the_terminal() -> None:
    for path in MODULES:
        if name_of(path) not in {"stages", "__main__"}:
            found = [
                f"{path}:{line}"
                for line, module in imports(parse(path))
                if "rich" in module.split(".")
            ]
            assert not found, f"only stages/ import rich: {found}"


def test_names_say_what_a_module_is_for() -> None:
    bad = [
        path
        for path in MODULES
        if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES
    ]
    assert not bad, f"{bad}: a function without a home shows a gap in the design"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE_LINES, f"{path}: {lines} lines; split it at {MAX_FILE_LINES}"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, (
                f"{path}:{node.lineno}: {node.name}: {length} lines"
            )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "workflow" / "rules").glob("*.smk")), ids=lambda p: p.name
)
def test_rule_files_stay_readable(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 150, f"{path}: over 150 lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_have_docstrings(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree), f"{path}: no docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        assert not public or ast.get_docstring(node), (
            f"{path}:{node.lineno}: {node.name}: no docstring"
        )


UNSAFE_MODULES = {"cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def unsafe_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield calls that could run what they read, or a shell."""
    for node in ast.walk(tree):
        pickled = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        if pickled and node.attr != "UnpicklingError":
            yield node.lineno, f"pickle.{node.attr}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}:
            yield node.lineno, name
        elif name == "torch.load" and keywords.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only=True"
        elif name.endswith("numpy.load") or name == "np.load":
            if keywords.get("allow_pickle", "False") != "False":
                yield node.lineno, "allow_pickle"
        elif keywords.get("shell") == "True":
            yield node.lineno, "shell=True"
        elif "dcp." in name or "all_gather_object" in name or "broadcast_object" in name:
            yield node.lineno, name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_data_never_runs_as_code(path: Path) -> None:
    tree = parse(path)
    assert not (found := list(unsafe_calls(tree))), f"{path}: {found}"
    modules = [module for _, module in imports(tree) if module.partition(".")[0] in UNSAFE_MODULES]
    assert not modules, f"{path}: imports {modules}"
    loads = "torch.load(" in path.read_text(encoding="utf-8")
    assert not loads or name_of(path) == "converters", f"{path}: torch.load belongs to converters/"


def test_no_trace_of_a_workplace() -> None:
    words = ["/work/", "../shared", "pypi.org", "pythonhosted"]
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path != Path(__file__):
            text = path.read_bytes().decode("utf-8", "replace")
            assert not [word for word in words if word in text], f"{name}: names a place of its own"


@pytest.mark.parametrize("module", ["config", *(f"stages.{stage}" for stage in TORCHLESS_STAGES)])
def test_data_stages_do_without_torch(module: str) -> None:
    code = f"import sys, pipeline.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_check_and_plan_import_torch_only_when_they_run() -> None:
    code = (
        "import sys, pipeline.stages.check, pipeline.stages.plan; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_stages_are_those_of_the_command_line() -> None:
    from pipeline.__main__ import STAGES

    with_command = {
        p.stem for p in (PACKAGE / "stages").glob("*.py") if "def add_arguments(" in p.read_text()
    }
    assert with_command == set(STAGES)


def test_the_unsafe_are_found() -> None:
    """The checks above see what they look for."""
    bad = "torch.load(p)\ntorch.load(p, weights_only=False)\neval(x)\nrun(c, shell=True)\n"
    bad += "pickle.loads"
    assert [line for line, _ in unsafe_calls(ast.parse(bad))] == [1, 2, 3, 4, 5]
    assert not list(unsafe_calls(ast.parse("torch.load(p, weights_only=True)\nnp.load(p)")))
