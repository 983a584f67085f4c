"""Learning-rate schedules against Paddle's own."""

import paddle
import pytest

from paddle_cxr.engine.schedules import Constant, Cosine, NaturalExpDecay, Plateau, Step
from paddle_cxr.errors import UserError


def paddles(scheduler, epochs):
    rates = []
    for _ in range(epochs):
        rates.append(scheduler())
        scheduler.step()
    return rates


def test_natural_exp_decay_is_the_blogs():
    theirs = paddles(paddle.optimizer.lr.NaturalExpDecay(3e-4, 0.6), 8)
    ours = NaturalExpDecay(3e-4, 0.6)
    assert [ours(epoch) for epoch in range(8)] == pytest.approx(theirs)
    assert ours(2.9) == ours(2.0), "held for a whole epoch"
    assert NaturalExpDecay(3e-4, 0.6, step_each="batch")(2.9) < ours(2.0)


def test_cosine_is_paddles():
    theirs = paddles(paddle.optimizer.lr.CosineAnnealingDecay(0.1, 10, eta_min=0.001), 10)
    assert [Cosine(0.1, 10, end=0.001)(epoch) for epoch in range(10)] == pytest.approx(theirs)


def test_step_is_paddles():
    theirs = paddles(paddle.optimizer.lr.MultiStepDecay(0.1, [3, 5], gamma=0.5), 8)
    assert [Step(0.1, [3, 5], gamma=0.5)(epoch) for epoch in range(8)] == pytest.approx(theirs)


def test_warm_up_rises_linearly_then_hands_over():
    schedule = Cosine(0.1, 10, warmup_epochs=2, warmup_start=0.01)
    assert [schedule(x) for x in (0.0, 1.0, 2.0)] == pytest.approx([0.01, 0.055, 0.1])
    assert schedule(10.0) == pytest.approx(0.0, abs=1e-12)
    assert Constant(0.1)(0.0) == 0.1


def test_plateau_says_when_and_by_how_much_the_trainer_lowers_the_rate():
    schedule = Plateau(0.1, factor=0.5, patience=5, warmup_epochs=1)
    assert (schedule(0.5), schedule(3.0), schedule.patience, schedule.factor) == (0.05, 0.1, 5, 0.5)
    assert Constant(0.1).patience is None
    for wrong in ({"factor": 1.0}, {"factor": 0.0}, {"patience": 0}):
        with pytest.raises(UserError, match="factor"):
            Plateau(0.1, **wrong)
