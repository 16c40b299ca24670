"""Inspection: what a model file holds, and whether it works here."""

import platform
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.probes import Output, Probe, Request
from pipeline.registry import PROBES, ComponentConfig
from pipeline.strict import canonical_json

# Tokens of the row that every device computes.
SAMPLE_TOKENS = 16


@PROBES.register("inspect")
class InspectProbe(Probe):
    """What a model is, and whether it works: origin, parameters, a forward pass on each device.

    A row for each fact. The file must load strictly: every byte as its digest says, no tensor
    missing, left over or of another shape; otherwise the command says which and fails.
    Source: the 2020 reference's check_model.
    """

    class Config(ComponentConfig):
        """No options."""

    def __init__(self, config: Any, request: Request):
        super().__init__(config, request)
        self.opened = request.open_model()

    def run(self, output: Output) -> dict[str, Any]:
        """Write the facts; return the number of parameters and of devices that ran."""
        rows = [*self._origin(), *self._parameters(), *self._passes()]
        output.write_rows({"fact": name, "value": value} for name, value in rows)
        facts = dict(rows)
        devices = sum(name.startswith("forward pass on") for name in facts)
        return {"parameters": facts["parameters"], "devices": devices}

    def _origin(self) -> Iterator[tuple[str, Any]]:
        metadata = self.opened.metadata
        yield "file", self.opened.where
        yield "strict load", "every tensor used, SHA-256 as recorded"
        yield "weights", metadata["weights"]
        yield "made by stage", metadata["stamp"]["stage"]
        yield "architecture", canonical_json(metadata["architecture"])
        targets = [section["name"] for section in metadata.get("targets", [])]
        yield "targets", ", ".join(targets) or "none"
        if "task" in metadata:
            yield "task", metadata["task"]["name"]
        yield "tokenizer", metadata["tokenizer"]
        yield "lowercase", metadata["lowercase"]
        yield "vocabulary", f"{len(self.opened.vocabulary.tokens)} tokens"
        yield "longest row", self.opened.room(special_tokens=False) or "no limit"

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        parts: Counter[str] = Counter()
        for name, parameter in self.opened.model.named_parameters():
            steps = name.split(".")
            parts[".".join(steps[: 2 if steps[0] == "targets" else 1])] += parameter.numel()
        yield "parameters", parts.total()
        for part, count in parts.items():
            yield f"parameters of {part}", count

    def _passes(self) -> Iterator[tuple[str, Any]]:
        """Run one row on every device here; a result that is not finite raises DataError."""
        devices = [torch.device("cpu")]
        devices += [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
        first = self._encode(devices[0])
        for device in devices:
            states = self._encode(device)
            if not torch.isfinite(states).all():
                raise DataError(f"{self.opened.where}: hidden states on {device} are not finite")
            name = (
                torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
            )
            difference = float((states - first).abs().max())
            told = "finite" if device.type == "cpu" else f"finite, {difference:.1e} from the CPU's"
            yield f"forward pass on {device}", f"{told} ({name})"

    @torch.no_grad()
    def _encode(self, device: torch.device) -> Tensor:
        size = len(self.opened.vocabulary.tokens)
        row = torch.arange(SAMPLE_TOKENS, device=device)[None] % size
        model = self.opened.model.to(device)
        return model.encode({"token_ids": row, "segment_ids": torch.ones_like(row)}).float().cpu()
