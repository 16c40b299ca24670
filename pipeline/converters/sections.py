"""A model's settings with every option written out, whether it was stated, preset or a default."""

from collections.abc import Mapping
from typing import Any

from pipeline.model import UER_2020
from pipeline.registry import EMBEDDINGS, ENCODERS, SUBENCODERS, TARGETS, Registry

ROOMS = {"embedding": EMBEDDINGS, "encoder": ENCODERS, "subencoder": SUBENCODERS}


def modes_of(name: str) -> dict[str, Any]:
    """Return the options that the 2020 reference settles for a component, by option.

    The component need not have all of them.
    """
    return {**UER_2020[""], **UER_2020.get(name, {})}


def state_modes(registry: Registry, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with the reference's modes written out where it is silent."""
    name = section["name"]
    fields = registry.get(name).Config.model_fields
    modes = {option: value for option, value in modes_of(name).items() if option in fields}
    return {**modes, **section}


def configured_sections(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return where -> section of a model's parts, with all options and the name.

    where: embedding, encoder, subencoder, targets.<name>. Raises ConfigError for wrong options.
    """
    parts = {
        where: (registry, metadata["architecture"].get(where)) for where, registry in ROOMS.items()
    }
    for section in metadata.get("targets", []):
        parts[f"targets.{section['name']}"] = (TARGETS, section)
    result: dict[str, dict[str, Any]] = {}
    for where, (registry, section) in parts.items():
        if section is None:
            continue
        if metadata.get("reference") == "uer-2020":
            section = state_modes(registry, section)
        _, config = registry.configure(section, where)
        result[where] = {"name": section["name"], **config.model_dump(mode="json")}
    if result["embedding"]["size"] is None:
        result["embedding"]["size"] = result["encoder"]["hidden_size"]
    if result.get("targets.nsp") and metadata.get("reference") == "uer-2020":
        stated = next(s for s in metadata["targets"] if s["name"] == "nsp")
        result["targets.nsp"]["pooler"] = stated.get("pooler", "targets.mlm" in result)
    return result


def replace_sections(
    metadata: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return metadata whose architecture and targets are these sections, fully written out."""
    architecture = {where: dict(sections[where]) for where in ROOMS if where in sections}
    targets = [dict(section) for where, section in sections.items() if where not in ROOMS]
    return {
        **metadata,
        "architecture": architecture,
        "targets": targets,
        "reference": "none",
    }
