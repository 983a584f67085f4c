"""Pre-trained models that have learned nothing yet, saved as a run saves them: for tests of what is asked of such."""

from __future__ import annotations

from pathlib import Path

import pytest

PRETRAINING = """
Global: {{task: pretraining, output_dir: {output}, device: cpu, seed: 3, epochs: 1, image_shape: [1, {side}, {side}],
         micro_batches: 1, ranks: 1}}
Arch:
  name: {method}
  dim: 16
  image: {{name: ResNet18}}
  text: {{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 16, vocab_size: 400,
          max_tokens: 60}}
Optimizer: {{name: Adam, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomPairs, count: 12, seed: 5, size: 32, findings: [effusion, consolidation, cardiomegaly]}}
  Split: {{name: PatientSplit, val: 0.34, test: 0.0}}
  cache: {{mode: memory}}
  Text: {{sections: [findings], take: all}}
  Train: {{sampler: {{batch_size: 8}}}}
"""


def untrained(folder: Path, method: str, side: int = 96) -> Path:
    """The output folder of such a run; skips the test where PaddleNLP is not installed."""
    pytest.importorskip("paddlenlp")
    from paddle_cxr.engine.distributed import World
    from paddle_cxr.tasks.pretraining.recipe import load
    from paddle_cxr.tasks.pretraining.run import prepare, save_model

    output = folder / f"{method}_{side}"
    file = folder / f"{method}_{side}.yaml"
    file.write_text(PRETRAINING.format(output=output, method=method, side=side), "utf-8")
    save_model(output / "model", prepare(load(file), World(), lambda _: None))
    return output
