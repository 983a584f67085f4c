"""Which part of the work is this program's: a recipe's shard, or one shard for each rank of a launcher."""

from __future__ import annotations

import os

from paddle_cxr.errors import UserError


def division(shard: int, shards: int) -> tuple[int, int]:
    """(shard, shards): as ``Global`` of the recipe says, or each rank of ``paddle.distributed.launch`` one shard.

    Raises:
        UserError: both, or no such shard.
    """
    rank, ranks = _number("PADDLE_TRAINER_ID", 0), _number("PADDLE_TRAINERS_NUM", 1)
    if ranks > 1 and shards > 1:
        raise UserError(f"Global.shards：用 paddle.distributed.launch 启动了 {ranks} 个进程，每个就是一片；"
                        "请去掉 Global.shards 和 Global.shard")
    if shard >= shards:
        raise UserError(f"Global.shard：{shard} 不在 0–{shards - 1} 之内（Global.shards={shards}）")
    return (rank, ranks) if ranks > 1 else (shard, shards)


def ranks_here() -> int:
    """How many ranks a launcher started on this machine, which have to share its cores; 1 without a launcher."""
    return max(1, _number("PADDLE_LOCAL_SIZE", _number("PADDLE_TRAINERS_NUM", 1)))


def _number(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default))
