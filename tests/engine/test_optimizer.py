"""Optimizers against their published formulas, written out in numpy: decay, who is spared from it, and clipping."""

import numpy as np
import paddle
import pytest

from paddle_cxr.engine.optimizer import build_optimizer

RATE, DECAY = 0.1, 0.5


def a_step(spec, gradients, steps=1):
    """Weights and bias of a layer that starts at ones, after ``steps`` steps with these constant gradients."""
    layer = paddle.nn.Linear(2, 2)
    for parameter in layer.parameters():
        parameter.set_value(paddle.ones_like(parameter))
    optimizer, schedule = build_optimizer(spec | {"lr": {"name": "Constant", "learning_rate": RATE}}, layer, 1)
    for _ in range(steps):
        optimizer.set_lr(schedule(0.0))
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            parameter.grad = paddle.full_like(parameter, gradient)
        optimizer.step()
    return layer.weight.numpy()[0, 0], layer.bias.numpy()[0]


def adam(value, gradient, decay, decoupled, steps=2):
    m = v = 0.0
    for t in range(1, steps + 1):
        g = gradient if decoupled else gradient + decay * value
        if decoupled:
            value *= 1 - RATE * decay
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        value -= RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return value


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_decays_weights_and_spares_biases(name):
    weight, bias = a_step({"name": name, "weight_decay": DECAY}, (0.3, 0.3), steps=2)
    assert weight == pytest.approx(adam(1.0, 0.3, DECAY, name == "AdamW"), rel=1e-5)
    assert bias == pytest.approx(adam(1.0, 0.3, 0.0, name == "AdamW"), rel=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_decays_weights_and_spares_biases(nesterov):
    weight, bias = a_step({"name": "Momentum", "weight_decay": DECAY, "nesterov": nesterov}, (0.3, 0.3), steps=2)
    for got, decay in ((weight, DECAY), (bias, 0.0)):
        value, velocity = 1.0, 0.0
        for _ in range(2):
            g = 0.3 + decay * value
            velocity = 0.9 * velocity + g
            value -= RATE * (g + 0.9 * velocity if nesterov else velocity)
        assert got == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Momentum"])
def test_the_norm_that_is_clipped_is_everybodys(name):
    """Four weights of gradient 3 and two biases of 4: norm sqrt(4 * 9 + 2 * 16); clipped, all shrink alike."""
    norm = np.sqrt(4 * 9 + 2 * 16)
    spec = {"name": name, "weight_decay": 0.0, **({} if name == "Momentum" else {"epsilon": 10.0})}
    clipped = a_step(spec | {"clip_norm": 1.0}, (3.0, 4.0))
    assert clipped == pytest.approx(a_step(spec, (3.0 / norm, 4.0 / norm)), rel=1e-5)
    assert a_step(spec | {"clip_norm": 100.0}, (3.0, 4.0)) == pytest.approx(a_step(spec, (3.0, 4.0)), rel=1e-6)
