"""Writing a trained classifier for use without its Python code."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from paddle_cxr import __version__
from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to
from paddle_cxr.inference.engines import open_engine
from paddle_cxr.inference.folder import GRAPHS, INFO, ONNX, PARAMS, PDPARAMS, sha256
from paddle_cxr.pdparams import one_line, read_pdparams, save_pdparams

if TYPE_CHECKING:
    from paddle.nn import Layer

FORMATS = ("inference", "onnx", "pdparams")
OPSET = 13  # every operator of these networks exists since; readable by ONNX Runtime 1.8 and later
TOLERANCE = 1e-4  # largest difference of a probability between the trained and the exported model


def export_model(model: Layer, preprocess: Mapping[str, Any], classes: Sequence[Mapping[str, str]],
                 image_shape: Sequence[int], out_dir: str | Path, formats: Sequence[str] = FORMATS, *,
                 sample_inputs: np.ndarray, views: str = "one", source: str | Path | None = None,
                 demo_data: bool = False) -> dict[str, Any]:
    """Export ``model`` and check every format against it on real images; nothing is written unless all agree.

    Args:
        model: returns logits [N, K].
        preprocess: how an image becomes an input, as :meth:`paddle_cxr.data.preprocess.Preprocess.to_dict` says it.
        classes: ``{"name", "zh", "en"}`` in label order.
        image_shape: (C, H, W); the batch size stays free.
        out_dir: made if absent; an earlier export there is replaced.
        formats: any of ``inference``, ``onnx``, ``pdparams``.
        sample_inputs: real images, pre-processed, float32 [N, C, H, W], N ≥ 1.
        views: test-time augmentation that becomes part of the exported networks: :func:`paddle_cxr.tasks.views.looks`.
        source: the checkpoint the model was loaded from.
        demo_data: whether it was trained on phantoms.

    Returns:
        What ``inference.yaml`` records, with ``folder``: among others ``checked`` = ``{"images": N, "max_difference":
        {format: largest difference of a probability}}``.

    Raises:
        UserError: unknown format, a converter that is not installed or fails, results that differ by more than 1e-4,
            no space or permission.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UserError(f"导出格式（formats）：不认识 {unknown or '空列表'}，可用：{'、'.join(FORMATS)}")
    if "onnx" in formats:
        _need_onnx()  # before the minute that the rest takes
    out_dir = Path(out_dir)
    info = {"format_version": 1, "architecture": getattr(model, "arch", type(model).__name__),
            "image_shape": list(image_shape), "classes": [dict(c) for c in classes], "preprocess": dict(preprocess),
            "views": views, "source": None if source is None else str(source), "demo_data": demo_data,
            "versions": _versions()}
    with writing_to(out_dir), _evaluating(model, views) as network:
        out_dir.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that the files can be moved there in one step each.
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".export-") as temporary:
            folder = Path(temporary)
            _write_formats(network, tuple(image_shape), folder, formats)
            info["files"] = {file.name: sha256(file) for file in sorted(folder.iterdir())}
            _write_info(folder, info)
            differences = _differences(network, folder, formats, sample_inputs)
            info["checked"] = {"images": len(sample_inputs), "max_difference": differences}
            _write_info(folder, info)
            _publish(folder, out_dir)
    return info | {"folder": str(out_dir)}


@contextmanager
def _evaluating(model: Layer, views: str) -> Iterator[Layer]:
    """The network from images to averaged probabilities, in evaluation mode; ``model`` goes on as it was."""
    from paddle_cxr.tasks.views import AveragedProbabilities

    was_training = model.training
    network = AveragedProbabilities(model, views)
    network.eval()
    try:
        yield network
    finally:
        if was_training:
            model.train()


def _write_formats(network: Layer, image_shape: tuple[int, ...], folder: Path, formats: Sequence[str]) -> None:
    if "inference" in formats or "onnx" in formats:
        _write_inference(network, image_shape, folder)
    if "onnx" in formats:
        _write_onnx(folder)
        if "inference" not in formats:  # it was only the road to ONNX
            for name in (*GRAPHS, PARAMS):
                (folder / name).unlink(missing_ok=True)
    if "pdparams" in formats:
        save_pdparams(folder / PDPARAMS, network.model.state_dict())


def _write_inference(network: Layer, image_shape: tuple[int, ...], folder: Path) -> None:
    """Trace the network into ``inference.*``."""
    import paddle

    paddle.jit.save(network, str(folder / "inference"),
                    input_spec=[paddle.static.InputSpec([None, *image_shape], "float32", name="image")])
    # Paddle 2.6 adds a pickle of internal names that nothing here reads.
    (folder / "inference.pdiparams.info").unlink(missing_ok=True)


def _need_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import paddle2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"导出 ONNX 需要 {error.name}：请运行 pip install paddle2onnx onnxruntime，"
                        "或不导出 onnx 格式（--formats inference pdparams）") from None


def _write_onnx(folder: Path) -> None:
    import paddle2onnx

    graph = next(folder / name for name in GRAPHS if (folder / name).exists())
    logging.getLogger("paddle2onnx").setLevel(logging.ERROR)
    try:
        # Without a file name it returns the model. With one it would fold constants by a further tool, which
        # installs packages from the internet as it goes; ONNX Runtime folds constants itself.
        content = paddle2onnx.export(str(graph), str(folder / PARAMS), None, opset_version=OPSET, verbose=False)
    except Exception as error:  # the converter reports failures as whatever went wrong inside it
        raise UserError(f"转换为 ONNX 失败（paddle2onnx {metadata.version('paddle2onnx')}，Paddle "
                        f"{_versions()['paddle']}）：{one_line(error)}；可不导出 onnx 格式") from None
    (folder / ONNX).write_bytes(content)


def _differences(network: Layer, folder: Path, formats: Sequence[str], inputs: np.ndarray) -> dict[str, float]:
    """Largest difference of a probability per format, with all images in a batch and with one."""
    import paddle

    with paddle.no_grad():
        expected = network(paddle.to_tensor(inputs)).numpy()
    result = {}
    for kind in formats:
        if kind == "pdparams":
            saved, state = read_pdparams(folder / PDPARAMS), network.model.state_dict()
            result[kind] = max(float(np.abs(saved[name] - state[name].numpy()).max()) for name in state)
            continue
        engine = open_engine(folder, kind)
        result[kind] = max(float(np.abs(engine.predict(inputs[:n]) - expected[:n]).max()) for n in (len(inputs), 1))
    wrong = {kind: value for kind, value in result.items() if not value <= TOLERANCE}
    if wrong:
        raise UserError(f"导出的模型与训练的模型结果不一致：概率最大相差 {wrong}（应 ≤ {TOLERANCE}）；没有写出")
    return result


def _publish(folder: Path, out_dir: Path) -> None:
    """Move a finished export into place; ``inference.yaml`` goes first and comes last, so half of one never opens."""
    (out_dir / INFO).unlink(missing_ok=True)
    for name in (*GRAPHS, PARAMS, ONNX, PDPARAMS):
        (out_dir / name).unlink(missing_ok=True)
    for file in sorted(folder.iterdir(), key=lambda file: file.name == INFO):
        os.replace(file, out_dir / file.name)


def _write_info(folder: Path, info: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(info), allow_unicode=True, sort_keys=False)
    (folder / INFO).write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    import paddle

    return {"paddle_cxr": __version__, "paddle": paddle.__version__, "python": platform.python_version()}
