"""The README's first line does what it says: slow, as it trains the main recipe."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_first_line_trains_a_good_model_and_leaves_everything(root, tmp_path):
    """In an empty folder, so that no data set is found and the recipe falls back to phantoms."""
    text = (root / "README.md").read_text(encoding="utf-8")
    line = re.search(r"<!-- line 1.*?^python .*? && (python .*?)$", text, re.MULTILINE | re.DOTALL)[1]
    words = shlex.split(line)[1:]
    command = [sys.executable, *(root / word if "/" in word else word for word in words)]
    environment = {name: value for name, value in os.environ.items() if not re.match("OMP_|MKL_|KMP_|PADDLE_", name)}
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "output/resnet50_phantom"
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["demo_data"] is True and metrics["evaluation"]["accuracy"] >= 0.95
    files = {file.name for file in out.iterdir()}
    assert files >= {"config.yaml", "log.txt", "history.csv", "metrics.json", "checkpoints", "visualdl", "curves.png",
                     "confusion_matrix.png", "roc.png", "pr.png", "calibration.png", "predictions.csv"}
    with open(out / "history.csv", encoding="utf-8", newline="") as rows:
        assert max(float(row["val_accuracy"]) for row in csv.DictReader(rows)) >= 0.95
