"""Which shard a program works on."""

import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.division import division, ranks_here

LAUNCHER = ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_LOCAL_SIZE")


@pytest.fixture
def launched(monkeypatch):
    """Set the variables of a launcher; at first there is none."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)

    def launch(*values):
        for name, value in zip(LAUNCHER, values, strict=False):
            monkeypatch.setenv(name, str(value))

    return launch


def test_without_a_launcher_the_recipe_says_it(launched):
    assert division(2, 5) == (2, 5) and ranks_here() == 1
    with pytest.raises(UserError, match="Global.shard：5 不在 0–4"):
        division(5, 5)


def test_a_rank_is_a_shard(launched):
    launched(3, 8)
    assert division(0, 1) == (3, 8) and ranks_here() == 8
    with pytest.raises(UserError, match="Global.shards.*8 个进程"):
        division(0, 2)
    launched(3, 8, 4)  # on two machines
    assert ranks_here() == 4


def test_one_rank_is_no_division(launched):
    launched(0, 1)
    assert division(1, 3) == (1, 3)
