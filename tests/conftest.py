"""Shared fixtures: small real image files, the repository's root, and running the tools as a user does.

What a test imports by name is in recipes.py: every folder may have a ``conftest``, and only one of them is the module.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from recipes import ROOT, make_class_folders, write_tiny_recipe

import paddle_cxr  # noqa: F401  sets the processor's environment before any test imports Paddle

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite run in the background: its children would ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Continuous integration tries the same examples every time, so that a red run is a change's fault; everyone else's runs
# keep looking for new ones. No deadline: two cores that are busy are slow, not wrong.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def real_data() -> Path:
    """The folder of real radiographs, or a skipped test."""
    folder = os.environ.get("PADDLE_CXR_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PADDLE_CXR_REAL_DATA is not set: no real radiographs on this machine")
    return Path(folder)


@pytest.fixture
def tool() -> Callable[..., subprocess.CompletedProcess]:
    """Run ``tools/NAME.py ARGS`` in a folder, as a user does."""

    def run(name: str, *arguments: object, cwd: Path, timeout: float = 240, env: dict | None = None
            ) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)], cwd=cwd,
                              capture_output=True, text=True, timeout=timeout, env=os.environ | (env or {}))

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, playwright's own or the system's; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as one:
        own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try:
            opened = one.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """See :func:`make_class_folders`."""
    return make_class_folders(tmp_path)


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """See :func:`write_tiny_recipe`."""
    return write_tiny_recipe(tmp_path)
