"""AdamW against its plain formula, the schedule against values written out by hand."""

import math

import pytest
import torch
from torch import nn

from pipeline.spec import OptimizationSpec
from pipeline.training.optimizer import (
    build_optimizer,
    clip_gradients,
    moments,
    restore_moments,
    schedule_factor,
    set_rate,
)


def settings(**values):
    return OptimizationSpec(total_steps=10, checkpoint_steps=5, **values)


def test_linear_schedule_is_the_references():
    # original-models.md, section 6: W = 2.5, N = 10.
    factors = [round(schedule_factor(step, 10, 0.25, "linear"), 3) for step in range(6)]
    assert factors == [0, 0.4, 0.8, 0.933, 0.8, 0.667]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_ends_at_zero(schedule):
    assert schedule_factor(10, 10, 0.1, schedule) == pytest.approx(0, abs=1e-12)
    assert schedule_factor(1, 10, 0.1, schedule) == 1


def test_constant_schedule_stays():
    assert {schedule_factor(step, 10, 0.0, "constant") for step in range(10)} == {1.0}


@pytest.mark.parametrize("bias_correction", [True, False])
def test_updates_follow_the_formula(bias_correction):
    plan = settings(bias_correction=bias_correction, weight_decay=0.1)
    weight = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3))
    expected = weight.detach().clone()
    mean, square = torch.zeros_like(expected), torch.zeros_like(expected)
    optimizer = build_optimizer([("weight", weight)], plan)
    for step in range(4):
        gradient = torch.full_like(expected, 0.3) * (step + 1) * torch.arange(6.0).view(2, 3)
        weight.grad = gradient.clone()
        set_rate(optimizer, 0.01, step, plan)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        c1, c2 = (1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)) if bias_correction else (1, 1)
        expected = expected * (1 - 0.01 * 0.1) - 0.01 * (mean / c1) / ((square / c2).sqrt() + 1e-6)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-9, atol=1e-12)


def test_biases_and_norms_are_not_decayed():
    named = [
        ("linear.weight", nn.Parameter(torch.ones(2, 2))),
        ("norm", nn.Parameter(torch.ones(2))),
    ]
    groups = build_optimizer(named, settings(weight_decay=0.01)).param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.01]


def test_clipping_scales_to_the_limit_and_returns_the_norm_before():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    assert clip_gradients(parameters, 0.0) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_shows_in_the_norm(bad):
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, bad])
    assert not math.isfinite(clip_gradients([parameter], 1.0))


def test_restored_moments_continue_to_the_same_bits():
    def train(weight, optimizer, start, stop):
        for step in range(start, stop):
            weight.grad = torch.sin(weight.detach() * (step + 1))
            set_rate(optimizer, 0.01, step, settings())
            optimizer.step()

    whole = nn.Parameter(torch.arange(4.0).view(2, 2))
    train(whole, build_optimizer([("w", whole)], settings()), 0, 6)
    first = nn.Parameter(torch.arange(4.0).view(2, 2))
    optimizer = build_optimizer([("w", first)], settings())
    train(first, optimizer, 0, 3)
    saved = {name: tensor.clone() for name, tensor in moments(optimizer, [("w", first)]).items()}
    second = nn.Parameter(first.detach().clone())
    resumed = build_optimizer([("w", second)], settings())
    restore_moments(resumed, [("w", second)], saved, 3)
    train(second, resumed, 3, 6)
    assert torch.equal(whole, second)
