"""Importing Paddle and its kin without their start-up chatter, and without hiding anything else."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator

# Written by Paddle with print(): advice against the OpenMP threads this package sets on purpose, and a dump of flags.
_NOISE = re.compile(r"OMP_NUM_THREADS|Modified FLAGS detected|^FLAGS\(name=|^=+$")


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Drop known noise from what is printed to stderr within; everything else passes."""
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            yield
    finally:
        rest = [line for line in caught.getvalue().splitlines() if line and not _NOISE.search(line)]
        if rest:
            print("\n".join(rest), file=sys.stderr)


def import_paddle() -> None:
    """Import Paddle for the first time, quietly; glog's INFO lines and deprecation warnings are turned off."""
    import zlib  # noqa: F401 - before Paddle, as 2.6 exports zlib's symbols and the process would crash later

    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", category=UserWarning, module="paddle")
    logging.getLogger("paddle").setLevel(logging.ERROR)
    with without_noise():
        import paddle  # noqa: F401


@contextlib.contextmanager
def importing(need: str, way_out: str) -> Iterator[None]:
    """Import an optional package within, without its warnings.

    Args:
        need: who needs what, in Chinese; way_out: what to do where that cannot be imported.

    Raises:
        UserError: it is not installed, or does not work here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # beside releases that they do not know, PaddleNLP and its kin fail in many ways
        from paddle_cxr.errors import UserError
        from paddle_cxr.pdparams import one_line

        raise UserError(f"{need}，但导入失败（{one_line(error)}）；{way_out}") from None
