"""paddle_cxr: chest X-ray AI in PaddlePaddle, from a first classifier to pretraining on synthetic data."""

from paddle_cxr import cpu

__version__ = "0.1.0"

# Before anything imports Paddle: MKL and OpenMP read their settings once, when they load.
cpu.prepare()
