"""Running :mod:`paddle_cxr.doctor.probe` and reading what it told, however it ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddle_cxr.doctor.probe import MARK

ROOT = Path(__file__).resolve().parents[2]
# The current folder is not searched, as it is not by the tools: a file there called paddle.py is nobody's business.
_START = f"import sys; sys.path[0] = {str(ROOT)!r}; from paddle_cxr.doctor import probe; probe.main()"


@dataclass(frozen=True)
class Told:
    """What a probe found out.

    Attributes:
        facts: everything it told before it ended.
        failure: the last line of its error, or the signal that ended it; None where it came through.
        late: it was still busy when its time was up.
        seconds: how long it took.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    late: bool = False
    seconds: float = 0.0


def ask(timeout: float, *arguments: str) -> Told:
    """Run a probe for at most ``timeout`` seconds; one that does not even start has failed, too."""
    begin = time.monotonic()
    try:
        process = subprocess.Popen([sys.executable, "-c", _START, *arguments], stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace", encoding="utf-8")
    except OSError as error:  # no memory for another process
        return Told(failure=f"{type(error).__name__}: {error}", seconds=time.monotonic() - begin)
    with process:
        try:
            out, error = process.communicate(timeout=timeout)
            late = False
        except subprocess.TimeoutExpired:
            process.kill()
            out, error = process.communicate()
            late = True
    failure = None if late or process.returncode == 0 else _why(process.returncode, error)
    return Told(_facts(out), failure, late, time.monotonic() - begin)


def _facts(out: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for line in out.splitlines():
        if line.startswith(MARK):
            facts |= json.loads(line.removeprefix(MARK))
    return facts


def _why(code: int, error: str) -> str:
    if code < 0:
        return f"进程被信号 {_signal_name(-code)} 终止"
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (raised or lines or [f"返回码 {code}"])[-1][:300]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
