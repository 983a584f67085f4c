"""Exporting a trained classifier for use without its Python code, and running what was exported.

An exported folder holds

    inference.yaml                          pre-processing, classes, image shape, origin, versions, SHA-256 of the rest
    inference.json (.pdmodel), .pdiparams   the network and its weights for Paddle Inference (Paddle 3; 2.6)
    model.onnx                              the same for ONNX Runtime and anything else that reads ONNX
    model.pdparams                          the weights alone, for Paddle users

Both networks end in softmax and average over the recipe's views (TTA): they take normalised images and return
probabilities.  The engines have one interface:

    engine = open_engine("output/resnet50/export", "onnx")
    probabilities = engine.predict(batch)     # float32 [N, C, H, W] → float32 [N, K]
"""

from paddle_cxr.inference.engines import Engine, open_engine
from paddle_cxr.inference.export import FORMATS, export_model

__all__ = ["FORMATS", "Engine", "export_model", "open_engine"]
