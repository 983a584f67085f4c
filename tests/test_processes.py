"""Work shared out among processes: in order, and what goes wrong in one is told as it is."""

import os
import signal
import threading
import time

import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.processes import _ctrl_c_later, in_order


def base(number=10):
    return number


def add(tools, task):
    if task == 13:
        os._exit(1)  # as the system ends a process when memory runs out
    return tools + task


def bad(kind):
    raise kind("broken")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(in_order(add, iter(range(12)), workers, base, (100,), method="fork")) == list(range(100, 112))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [UserError, ValueError])
def test_what_keeps_a_process_from_starting_is_told(kind, workers):
    with pytest.raises(kind, match="broken"):
        list(in_order(add, range(3), workers, bad, (kind,), method="fork"))


def test_a_process_that_dies_is_one_line():
    with pytest.raises(UserError, match="工作进程被系统终止"):
        list(in_order(add, [1, 13, 2], 2, base, method="fork"))


def test_ctrl_c_waits_until_a_process_is_started_whatever_thread_gets_it():
    """Else the new process finds half of what it was to be told, and says so at length."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ended, passed = threading.Event(), False
    threading.Thread(target=ended.wait, daemon=True).start()  # blocks no signals
    try:
        with pytest.raises(KeyboardInterrupt):
            with _ctrl_c_later():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
                passed = True
        assert passed and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)
