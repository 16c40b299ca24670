"""AdamW, its schedule as a pure function of the step, and clipping.

Source: Loshchilov and Hutter 2019 (arXiv:1711.05101). Differs on request: without bias correction,
as Google BERT and the 2020 reference have it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import DataError


class OptimizerSettings(Protocol):
    """What OptimizationSpec and FinetuneSpec have in common."""

    @property
    def weight_decay(self) -> float: ...
    @property
    def betas(self) -> list[float]: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def bias_correction(self) -> bool: ...


def schedule_factor(step: int, total_steps: int, warmup: float, schedule: str) -> float:
    """Return the multiplier of the peak rate for the update that follows `step` updates.

    Rises linearly from 0 over warmup * total_steps, then falls to 0 (linear, cosine) or stays.
    The first update with a warm-up has rate 0, as in the reference.
    """
    rising = total_steps * warmup
    if step < rising:
        return step / max(1.0, rising)
    if schedule == "constant":
        return 1.0
    remaining = max(0.0, (total_steps - step) / max(1.0, total_steps - rising))
    return remaining if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * remaining))


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    settings: OptimizerSettings,
    rate_scale: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.AdamW:
    """Return a fused AdamW over the parameters that want gradients.

    Biases and norms (one axis) are not decayed. rate_scale: name -> factor on the learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((decay, rate_scale(name)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "decay": decay, "scale": scale, "weight_decay": decay}
            for (decay, scale), parameters in groups.items()
        ],
        lr=0.0,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.epsilon,
        fused=True,
    )


def set_rate(
    optimizer: torch.optim.AdamW, rate: float, step: int, settings: OptimizerSettings
) -> None:
    """Prepare the update that follows `step` updates.

    Without bias correction the same fused kernel runs with the correction divided out of its
    rate and epsilon: m / (sqrt(v) + e) = k (m/c1) / (sqrt(v/c2) + e/sqrt(c2)), k = c1/sqrt(c2).
    """
    factor, root = 1.0, 1.0
    if not settings.bias_correction:
        root = math.sqrt(1 - settings.betas[1] ** (step + 1))
        factor = (1 - settings.betas[0] ** (step + 1)) / root
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"] * factor
        group["eps"] = settings.epsilon / root
        group["weight_decay"] = group["decay"] / factor


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Scale gradients in place to a total norm of at most `max_norm` (0: leave them).

    Returns the norm before; not finite if any gradient is not.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [torch.linalg.vector_norm(gradient).double() ** 2 for gradient in gradients]
    norm = math.sqrt(total) if math.isfinite(total := float(sum(squares))) else math.nan
    if max_norm and norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
    return norm


def moments(
    optimizer: torch.optim.AdamW, named_parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """Return AdamW's state by name: exp_avg.<parameter> and exp_avg_sq.<parameter>."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in named_parameters:
        state = optimizer.state.get(parameter)
        for key in ("exp_avg", "exp_avg_sq"):
            if parameter.requires_grad:
                tensors[f"{key}.{name}"] = state[key] if state else torch.zeros_like(parameter)
    return tensors


def restore_moments(
    optimizer: torch.optim.AdamW,
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    tensors: dict[str, Tensor],
    step: int,
) -> None:
    """Set AdamW's state to what `moments` returned after `step` updates.

    Raises DataError if they are those of other parameters.
    """
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        state = {"step": torch.tensor(float(step), device=parameter.device)}
        for key in ("exp_avg", "exp_avg_sq"):
            found = tensors.get(f"{key}.{name}")
            if found is None or found.shape != parameter.shape:
                shown = "none" if found is None else f"one of shape {list(found.shape)}"
                raise DataError(
                    f"optimizer state at step {step}: {key}.{name} must have shape "
                    f"{list(parameter.shape)}, there is {shown}"
                )
            state[key] = found.to(parameter.device).clone()
        optimizer.state[parameter] = state
