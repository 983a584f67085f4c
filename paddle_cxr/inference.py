"""Exporting a trained classifier for use without its Python code, and running what was exported.

An exported folder holds

    inference.yaml                          pre-processing, classes, image shape, origin, versions, SHA-256 of the rest
    inference.json (.pdmodel), .pdiparams   the network and its weights for Paddle Inference (Paddle 3; 2.6)
    model.onnx                              the same for ONNX Runtime and anything else that reads ONNX
    model.pdparams                          the weights alone, for Paddle users

Both networks end in softmax: they take normalised images and return probabilities.  The engines have one interface:

    engine = open_engine("output/resnet50/export", "onnx")
    probabilities = engine.predict(batch)     # float32 [N, C, H, W] → float32 [N, K]
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
import yaml

from paddle_cxr import __version__, cpu
from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to
from paddle_cxr.pdparams import one_line, read_pdparams, save_pdparams

if TYPE_CHECKING:
    from paddle.nn import Layer

INFO = "inference.yaml"
ONNX, PDPARAMS = "model.onnx", "model.pdparams"
GRAPHS = ("inference.json", "inference.pdmodel")  # Paddle 3 / Paddle 2.6
PARAMS = "inference.pdiparams"
FORMATS = ("inference", "onnx", "pdparams")
OPSET = 13  # every operator of these networks exists since; readable by ONNX Runtime 1.8 and later
TOLERANCE = 1e-4  # largest difference of a probability between the trained and the exported model


def export_model(model: Layer, preprocess: Mapping[str, Any], classes: Sequence[Mapping[str, str]],
                 image_shape: Sequence[int], out_dir: str | Path, formats: Sequence[str] = FORMATS, *,
                 sample_inputs: np.ndarray, source: str | Path | None = None, demo_data: bool = False
                 ) -> dict[str, Any]:
    """Export ``model`` and check every format against it on real images; nothing is written unless all agree.

    Args:
        model: returns logits [N, K].
        preprocess: how an image becomes an input, as :meth:`paddle_cxr.data.preprocess.Preprocess.to_dict` says it.
        classes: ``{"name", "zh", "en"}`` in label order.
        image_shape: (C, H, W); the batch size stays free.
        out_dir: made if absent; an earlier export there is replaced.
        formats: any of ``inference``, ``onnx``, ``pdparams``.
        sample_inputs: real images, pre-processed, float32 [N, C, H, W], N ≥ 1.
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
            "source": None if source is None else str(source), "demo_data": demo_data, "versions": _versions()}
    with writing_to(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that the files can be moved there in one step each.
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".export-") as temporary:
            folder = Path(temporary)
            _write_formats(model, tuple(image_shape), folder, formats)
            info["files"] = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
            _write_info(folder, info)
            differences = _differences(model, folder, formats, sample_inputs)
            info["checked"] = {"images": len(sample_inputs), "max_difference": differences}
            _write_info(folder, info)
            _publish(folder, out_dir)
    return info | {"folder": str(out_dir)}


def _write_formats(model: Layer, image_shape: tuple[int, ...], folder: Path, formats: Sequence[str]) -> None:
    if "inference" in formats or "onnx" in formats:
        _write_inference(model, image_shape, folder)
    if "onnx" in formats:
        _write_onnx(folder)
        if "inference" not in formats:  # it was only the road to ONNX
            for name in (*GRAPHS, PARAMS):
                (folder / name).unlink(missing_ok=True)
    if "pdparams" in formats:
        save_pdparams(folder / PDPARAMS, model.state_dict())


def _write_inference(model: Layer, image_shape: tuple[int, ...], folder: Path) -> None:
    """Trace the network and its softmax into ``inference.*``."""
    import paddle
    from paddle import nn

    was_training = model.training
    network = nn.Sequential(model, nn.Softmax(axis=1))
    network.eval()
    try:
        paddle.jit.save(network, str(folder / "inference"),
                        input_spec=[paddle.static.InputSpec([None, *image_shape], "float32", name="image")])
    finally:
        if was_training:
            model.train()
    # Paddle 2.6 adds a pickle of internal names that nothing here reads.
    (folder / "inference.pdiparams.info").unlink(missing_ok=True)


def _need_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import paddle2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"导出 ONNX 需要 {error.name}：请运行 pip install paddle2onnx onnxruntime，"
                        "或不导出 onnx 格式") from None


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


def _differences(model: Layer, folder: Path, formats: Sequence[str], inputs: np.ndarray) -> dict[str, float]:
    """Largest difference of a probability per format, with all images in a batch and with one."""
    import paddle
    from paddle.nn import functional as F

    was_training = model.training
    model.eval()
    with paddle.no_grad():
        expected = F.softmax(model(paddle.to_tensor(inputs)), axis=1).numpy()
    if was_training:
        model.train()
    result = {}
    for kind in formats:
        if kind == "pdparams":
            saved, state = read_pdparams(folder / PDPARAMS), model.state_dict()
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


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _ClassEntry(pydantic.BaseModel, strict=True):
    name: str
    zh: str
    en: str


class _Info(pydantic.BaseModel, strict=True, extra="allow"):
    """What an engine needs from ``inference.yaml``."""

    image_shape: list[pydantic.PositiveInt] = pydantic.Field(min_length=3, max_length=3)
    classes: list[_ClassEntry] = pydantic.Field(min_length=2)
    preprocess: dict[str, Any]
    files: dict[str, str]
    demo_data: bool


class Engine:
    """An exported classifier.

    Args:
        folder: as :func:`export_model` left it.
        threads: CPU threads; all available cores by default.

    Attributes:
        info: what ``inference.yaml`` records: ``preprocess``, ``classes``, ``image_shape``, ``demo_data`` …

    Raises:
        UserError: not an exported model, incomplete, damaged, or a runtime that is not installed.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        try:
            self._run = self._open(threads or cpu.available_cores())
        except UserError:
            raise
        except Exception as error:  # whatever the runtime raises on a file that is not a network
            raise UserError(f"无法打开 {self.folder} 里的模型（{one_line(error)}）；请重新导出") from None

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Normalised images, float32 [N, C, H, W] → probabilities, float32 [N, K], each row summing to 1.

        Raises :class:`UserError` when the images or the network do not fit what ``inference.yaml`` says.
        """
        shape, classes = self.info["image_shape"], self.info["classes"]
        if list(batch.shape[1:]) != shape:
            raise UserError(f"{self.folder}：模型要求每张图的形状（image_shape）为 {shape}，"
                            f"现在是 {list(batch.shape[1:])}")
        try:
            result = self._run(np.ascontiguousarray(batch, dtype=np.float32))
        except Exception as error:  # whatever the runtime raises on a network that is not what the folder says it is
            raise UserError(f"{self.folder}：模型运行失败（{one_line(error)}）；请重新导出") from None
        if result.shape != (len(batch), len(classes)):
            raise UserError(f"{self.folder}：模型输出的形状 {list(result.shape)} 与 {len(classes)} 个类别不符；"
                            "请重新导出")
        return result

    def _open(self, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        """Load the network; returns a function from a batch to its probabilities."""
        raise NotImplementedError

    def _checked(self, *names: str) -> list[str]:
        """Paths of the folder's files ``names``, once they are seen to be the files that were exported.

        The runtimes are native code, and some crash on a damaged file instead of saying so.
        """
        for name in names:
            file = self.folder / name
            if name not in self.info["files"] or not file.is_file():
                raise UserError(f"{self.folder} 里没有 {name}；请用 tools/export.py 重新导出这种格式")
            if _sha256(file) != self.info["files"][name]:
                raise UserError(f"{file} 已损坏或被改动（SHA-256 与 {INFO} 不符）；请重新导出")
        return [str(self.folder / name) for name in names]


class InferenceEngine(Engine):
    """Paddle Inference on the CPU with oneDNN: about 1.5 times as many images/s as without (ResNet-50, 224²)."""

    def _open(self, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        from paddle import inference

        graph = next((name for name in GRAPHS if name in self.info["files"]), GRAPHS[0])
        config = inference.Config(*self._checked(graph, PARAMS))
        config.disable_gpu()
        config.disable_glog_info()
        # Older versions know oneDNN by its former name.
        (config.enable_onednn if hasattr(config, "enable_onednn") else config.enable_mkldnn)()
        config.set_cpu_math_library_num_threads(threads)
        predictor = inference.create_predictor(config)
        inputs = predictor.get_input_handle(predictor.get_input_names()[0])
        outputs = predictor.get_output_handle(predictor.get_output_names()[0])

        def run(batch: np.ndarray) -> np.ndarray:
            inputs.reshape(batch.shape)
            inputs.copy_from_cpu(batch)
            predictor.run()
            return outputs.copy_to_cpu()

        return run


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU; Paddle need not be installed."""

    def _open(self, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        try:
            import onnxruntime
        except ImportError:
            raise UserError("用 ONNX 模型预测需要 onnxruntime：请运行 pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: it warns about constants the converter left over
        session = onnxruntime.InferenceSession(*self._checked(ONNX), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]


_ENGINES: dict[str, type[Engine]] = {"inference": InferenceEngine, "onnx": OnnxEngine}


def open_engine(folder: str | Path, kind: str) -> Engine:
    """Open an exported folder with Paddle Inference (``inference``) or ONNX Runtime (``onnx``)."""
    if kind not in _ENGINES:
        raise UserError(f"没有叫 {kind!r} 的推理引擎（engine），可用：{'、'.join(_ENGINES)}")
    return _ENGINES[kind](folder)


def _read_info(folder: Path) -> dict[str, Any]:
    """``inference.yaml``, checked."""
    file = folder / INFO
    if not file.is_file():
        raise UserError(f"{folder} 不是导出的模型（没有 {INFO}）；请先运行 tools/export.py")
    try:
        return _Info.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).model_dump()
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        problem = f"{'.'.join(map(str, detail['loc']))}：{detail['msg']}"
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problem = one_line(error)
    raise UserError(f"{file} 损坏（{problem}）；请用 tools/export.py 重新导出")
