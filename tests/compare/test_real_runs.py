"""The comparison's own recipe in miniature, every run a real one: pretraining, zero-shot, grounding, tuning, masks."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = ["normal", "consolidation", "effusion", "pneumothorax", "cardiomegaly"]
TEST = {"name": "PhantomFindings", "count": 60, "seed": 901, "size": 64, "findings": FINDINGS}
PAIRS = {"name": "PhantomPairs", "count": 60, "seed": 5, "size": 64, "findings": FINDINGS}
MINI = {
    "_base_": "synthetic_vs_real.yaml",
    "Prepare": [],
    "Arms": {"real": {"pretraining": {"DataLoader": {"Source": {"source": {"count": 60}}}}},
             "synthetic": {"pretraining": {"DataLoader": {"Source": PAIRS}}}, "mixed": None},
    "Pretraining": {"override": {"Global": {"epochs": 1}, "DataLoader": {
        "Train": {"sampler": {"batch_size": 16, "samples_per_epoch": 32}}}}},
    "Tasks": {
        "zero_shot": {"override": {"DataLoader": {"Source": TEST}, "Metric": {"resamples": 20}}},
        "grounding": {"override": {"DataLoader": {"Source": TEST}, "Metric": {"resamples": 20}}},
        "finetuning": {"override": {"Global": {"epochs": 1}, "DataLoader": {"Source": TEST}},
                       "vary": {"Finetune.fraction": [0.1, 1.0]}, "seeds": [0]},
        "segmentation": {"override": {"Global": {"epochs": 1}, "DataLoader": {"Source": TEST}}, "seeds": [0]},
    },
    "Expected": {"order": ["real", "synthetic"], "source": "论文"},
    "Significance": {"resamples": 100},
}


@pytest.mark.slow
def test_every_cell_is_computed_and_compared(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs/compare/mini.yaml").write_text(yaml.safe_dump(MINI, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, ROOT / "tools/compare.py", "-c", "configs/compare/mini.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert "不做显著性检验" not in done.stdout, done.stdout
    folder = tmp_path / "output/compare/synthetic_vs_real"
    with open(folder / "compare.csv", encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    # two arms and two methods in each of five columns, and the baseline of tuning and segmentation
    assert len(rows) == 2 * 2 * 5 + 3
    assert all(0 <= float(row["mean"]) <= 1 for row in rows)
    assert all(row["difference"] for row in rows if row["arm"] == "synthetic")
    assert "非临床结果" in (folder / "compare.md").read_text(encoding="utf-8")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "27 项已经做完，跳过" in again.stdout
