"""Strict readers of YAML and JSON: what two parsers could read differently is refused.

YAML: no tags, no anchors or aliases, no duplicate keys, at most 1 MB, and no plain scalar that
YAML 1.1 turns into something else (`no`, `on`, `010`, `12:30:00`): quote it. JSON: no duplicate
keys, no NaN or Infinity, at most 64 levels deep.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError, DataError, UnsafeError, from_os_error, printable

MAX_YAML_BYTES = 1_000_000
MAX_JSON_DEPTH = 64
# YAML 1.1 reads these as booleans, octal or sexagesimal numbers, YAML 1.2 as strings.
AMBIGUOUS = re.compile(r"(?i)^(y|n|yes|no|on|off|[-+]?0\d[\d_]*|[-+]?\d+(:[0-5]?\d)+(\.\d*)?)$")
FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


class _StrictLoader(yaml.SafeLoader):
    """A safe loader for one file; the problems it finds name their line."""


def _refuse(node: yaml.Node, kind: type, text: str) -> None:
    raise kind(f"{node.start_mark.name}:{node.start_mark.line + 1}: {text}")


def _scalar(loader: _StrictLoader, node: yaml.ScalarNode) -> Any:
    value = node.value
    if node.style is None:
        if AMBIGUOUS.match(value):
            _refuse(
                node, ConfigError, f"{value!r} means different things to YAML readers; quote it"
            )
        if FLOAT.match(value):  # PyYAML leaves 1e-4 a string
            return float(value) if re.search(r"[.eE]", value) else int(value)
    return yaml.SafeLoader.construct_object(loader, node)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[str, Any]:
    lines: dict[str, int] = {}
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
            _refuse(key_node, ConfigError, "a key must be a plain string")
        if key in lines:
            first, again = lines[key], key_node.start_mark.line + 1
            _refuse(
                key_node, ConfigError, f"key {key!r} stands twice, in lines {first} and {again}"
            )
        lines[key] = key_node.start_mark.line + 1
        result[key] = _construct(loader, value_node)
    return result


def _construct(loader: _StrictLoader, node: yaml.Node) -> Any:
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        _refuse(node, UnsafeError, f"tag {printable(node.tag)!r} is not allowed")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, child) for child in node.value]
    return _scalar(loader, node)  # type: ignore[arg-type]


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of one YAML document; `where` names it in messages.

    Raises ConfigError for what is ambiguous or malformed, UnsafeError for tags, anchors and size.
    """
    if len(text) > MAX_YAML_BYTES:
        raise UnsafeError(f"{where}: {len(text)} characters of YAML; at most {MAX_YAML_BYTES}")
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
                line = token.start_mark.line + 1
                raise UnsafeError(f"{where}:{line}: anchors and aliases are not allowed")
        loader = _StrictLoader(text)
        loader.name = where
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{where}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: not YAML: {printable(error)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises ConfigError if its top level is anything else."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise from_os_error(error, path) from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        found = "empty" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"{path}: top level is {found}; it must be keys with values")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {printable(twice)!r} stands twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str, where: str, error: type = DataError) -> Any:
    """Return the value of a JSON text; problems raise `error` (or UnsafeError for depth)."""
    depth = deepest = 0
    for bracket in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if bracket[0] in "[{":
            deepest = max(deepest, depth := depth + 1)
        elif bracket[0] in "]}":
            depth -= 1
    if deepest > MAX_JSON_DEPTH:
        raise UnsafeError(f"{where}: JSON nested {deepest} deep; at most {MAX_JSON_DEPTH}")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as bad:
        raise error(f"{where}:{bad.lineno}:{bad.colno}: not JSON: {bad.msg}") from None
    except ValueError as bad:
        raise error(f"{where}: not JSON: {bad}") from None


def read_json(path: Path, error: type = DataError) -> Any:
    """Return the value in a JSON file; malformed content raises `error`."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as bad:
        raise error(f"{path}: not UTF-8 at byte {bad.start}") from None
    except OSError as bad:
        raise from_os_error(bad, path) from None
    return parse_json(text, str(path), error)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: keys sorted, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
