"""Names to classes: one registry for each room, filled by importing every file of the room.

Adding an alternative is adding one file with a registered class; nothing else is edited.
"""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError, printable

Component = TypeVar("Component", bound=type)
UNION_BRANCH = re.compile(
    r"^(int|float|str|bool|(list|dict|constrained|function|lax-or-strict|literal)[\[-].*)$"
)


class ComponentConfig(BaseModel):
    """The settings of one component: strict, frozen, unknown keys refused.

    Subclasses are nested in the component as `Config`; a docstring under each field gives unit
    and range.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one and the list."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(options) or 'none'}"


def describe(error: ValidationError, where: str, model: type[BaseModel] | None = None) -> list[str]:
    """Return one line for each problem of a pydantic error: place, found value, what is right.

    model: the one that was validated; a misspelt key then names the nearest known one.
    """
    separator = ": " if where.endswith((".yaml", ".json", ".jsonl")) else "."
    lines: dict[str, str] = {}
    for problem in error.errors():
        # The branches of a union are steps of a location too; they are no keys.
        path = [part for part in problem["loc"] if not UNION_BRANCH.match(str(part))]
        key = ".".join(map(str, path))
        place = separator.join(filter(None, [where, key]))
        if problem["type"] == "extra_forbidden":
            known = _known_keys(model, path)
            hint = nearest(str(path[-1]), known) if known else "see config/README.md"
            lines[place] = f"{place}: unknown key; {hint}"
            continue
        message = problem["msg"].removeprefix("Value error, ")
        whole = problem["type"] == "missing" or isinstance(problem["input"], dict)
        told = problem["type"] == "value_error" and str(problem["input"]) in message.split()
        found = "" if whole or told else f", found {printable(problem['input'])!r}"
        text = f"{message[0].lower()}{message[1:]}"
        first = lines[place].removesuffix(found) + ", or " if place in lines else f"{place}: "
        lines[place] = first + text + found
    return list(lines.values())


def _known_keys(model: Any, path: list[int | str]) -> list[str]:
    """Return the keys that the model on the way to `path` knows; none if it is not certain."""
    models = [model]
    for part in path[:-1]:
        if isinstance(part, str):
            fields = [m.model_fields[part] for m in models if m and part in m.model_fields]
            # A part that is no field is a key of a mapping of models.
            models = [m for f in fields for m in _models_in(f.annotation)] if fields else models
    return sorted({key for m in models if m for key in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


class Registry:
    """The alternatives of one room, by name."""

    def __init__(self, room: str, kind: str):
        self.room = room
        self.kind = kind
        self._classes: dict[str, type] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[Component], Component]:
        """Return a class decorator that files the class under `name`; a name is taken once."""

        def file_under(component: Component) -> Component:
            assert name not in self._classes, f"{self.room}: {name} is registered twice"
            assert issubclass(component.Config, ComponentConfig), component  # type: ignore[attr-defined]
            component.name = name  # type: ignore[attr-defined]
            self._classes[name] = component
            return component

        return file_under

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._discover()
        return sorted(self._classes)

    def get(self, name: str, where: str = "") -> Any:
        """Return the class called `name`. Raises ConfigError with the nearest name otherwise."""
        self._discover()
        if name not in self._classes:
            place = f"{where}: " if where else ""
            raise ConfigError(
                f"{place}no {self.kind} {printable(name)!r}; {nearest(name, self._classes)}"
            )
        return self._classes[name]

    def configure(self, section: Mapping[str, Any], where: str = "") -> tuple[Any, Any]:
        """Return (class, checked Config) for a section `{name: ..., option: ...}`.

        Raises ConfigError with one line for each wrong option.
        """
        options = dict(section)
        where = where or self.kind
        component = self.get(str(options.pop("name", "")), f"{where}.name")
        try:
            return component, component.Config(**options)
        except ValidationError as error:
            raise ConfigError(*describe(error, where, component.Config)) from None

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(f"pipeline.{self.room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"pipeline.{self.room}.{module.name}")
        self._discovered = True


INSTANCES = Registry("instances", "instance kind")
SUBENCODERS = Registry("subencoders", "subencoder")
EMBEDDINGS = Registry("embeddings", "embedding")
ENCODERS = Registry("encoders", "encoder")
TARGETS = Registry("targets", "target")
TASKS = Registry("tasks", "task")
CONVERTERS = Registry("converters", "converter")
PROBES = Registry("probes", "probe")
