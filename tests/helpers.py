"""What several test files do: run a tool as a user does, kill it half-way, spoil a JSON file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from recipes import ROOT

# The last bits of a matrix product depend on the number of threads (as they do on the processor), nothing else does.
# PADDLE_CXR_ENV="" makes it the user's setting, which the tool keeps.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PADDLE_CXR_ENV": ""}


def command(name: str, recipe: Path, *overrides: str) -> list[str]:
    """``tools/NAME.py -c recipe -o …``"""
    return [sys.executable, str(ROOT / "tools" / f"{name}.py"), "-c", str(recipe),
            *(part for one in overrides for part in ("-o", one))]


def run_tool(name: str, recipe: Path, *overrides: str, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a tool on one thread, in the recipe's folder."""
    return subprocess.run(command(name, recipe, *overrides), capture_output=True, text=True, timeout=timeout,
                          cwd=recipe.parent, env=os.environ | ONE_THREAD)


def kill_at_first_checkpoint(recipe: Path, output: Path, *overrides: str) -> None:
    """Train into ``output`` and kill the process when its first checkpoint is there."""
    settings = (f"Global.output_dir={output}", *overrides)
    with subprocess.Popen(command("train", recipe, *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          cwd=recipe.parent, env=os.environ | ONE_THREAD) as process:
        deadline = time.monotonic() + 120
        while not (output / "checkpoints" / "latest").is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)


def change(file: Path, **changes: object) -> None:
    """Change keys of a JSON file; ``"delete"`` takes one away."""
    content = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "delete"}), "utf-8")
