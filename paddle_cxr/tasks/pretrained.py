"""A pre-trained model by the folder of its run: what zero-shot, grounding, fine-tuning and segmentation begin with.

    settings = read_settings("output/convirt_phantom")      # what model.json says; loads no Paddle and no weights
    model = open_pretrained("output/convirt_phantom")       # both towers, ready to use

A recipe names the run and nothing else: architecture, input size and pre-processing are those of the training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.errors import UserError
from paddle_cxr.schema import PreprocessSection, Section, checked
from paddle_cxr.tasks.pretraining.schema import OWN_KEYS, PretrainingArch

if TYPE_CHECKING:
    import paddle

    from paddle_cxr.models.text_encoder import ReportTokenizer

R = TypeVar("R", bound=Section)
MODEL, META, TEXT = "model", "model.json", "text"  # as tasks/pretraining/run.py and towers.py write them


@dataclass(frozen=True)
class PretrainedSettings:
    """What a pre-trained model is, without its weights.

    Attributes:
        folder: with ``model.safetensors``, ``model.json`` and ``text/``.
        meta: ``model.json``.
        arch: the recipe's ``Arch`` at the training.
        image_shape: input (channels, height, width).
        preprocess: the recipe's ``DataLoader.preprocess`` at the training.
    """

    folder: Path
    meta: Mapping[str, Any]
    arch: PretrainingArch
    image_shape: tuple[int, int, int]
    preprocess: PreprocessSection

    @property
    def image_tower(self) -> dict[str, Any]:
        """The image tower as a component with its trained weights, e.g. ``{name: ResNet18, pretrained: …/model}``.

        As ``Arch`` takes it, and :func:`paddle_cxr.tasks.models.build_backbone`.
        """
        return {**self.arch.image, "pretrained": str(self.folder)}


@dataclass(frozen=True)
class Pretrained:
    """A pre-trained model, ready to use.

    Attributes:
        model: both towers, in evaluation mode: ``encode_image``, ``encode_text``, ``similarities``, ``score``.
        tokenizer: of its text tower.
        preprocess: what a picture becomes before the model sees it.
        settings: what it is.
        notices: lines for the user.
    """

    model: paddle.nn.Layer
    tokenizer: ReportTokenizer
    preprocess: Preprocess
    settings: PretrainedSettings
    notices: list[str]

    @property
    def meta(self) -> Mapping[str, Any]:
        return self.settings.meta


def read_settings(checkpoint: str | Path) -> PretrainedSettings:
    """What the model of a pre-training run is.

    Args:
        checkpoint: the run's output folder, its ``model`` folder, or the weights in there.

    Raises:
        UserError: no such model, one without a text tower (a classifier), a damaged or incomplete ``model.json``.
    """
    folder = _model_folder(Path(checkpoint))
    meta = _read_meta(folder / META)
    name = meta.get("architecture")
    if name not in tuple(OWN_KEYS):
        raise UserError(f"{folder} 是 {name or '未知结构'} 的权重，没有文本塔（text tower），"
                        "不能做零样本（zero-shot）；请给图文预训练（Global.task: pretraining）的输出目录")
    if not os.path.isdir(folder / TEXT):  # a pre-training run's checkpoints hold both towers, but not the vocabulary
        raise UserError(f"{folder} 里没有词表 {TEXT}/（训练途中的检查点？）；"
                        f"请给训练完的预训练的输出目录或其中的 {MODEL} 文件夹")
    path = folder / META
    try:
        arch = checked({"name": meta["architecture"], **meta["arguments"]}, PretrainingArch)
        shape = pydantic.TypeAdapter(tuple[int, int, int]).validate_python(meta["image_shape"])
        preprocess = checked(meta["preprocess"], PreprocessSection)
    except KeyError as error:
        raise UserError(f"{path}：缺少 {error.args[0]}，不知道模型怎样建；请用本项目训练的模型") from None
    except (UserError, pydantic.ValidationError, TypeError) as error:
        what = str(error).splitlines()[0]
        raise UserError(f"{path}：这个版本读不懂：{what}；请用写它的那个版本，或重新训练") from None
    return PretrainedSettings(folder, meta, arch, shape, preprocess)


def open_pretrained(checkpoint: str | Path) -> Pretrained:
    """Build a pre-trained model and load its weights; arguments and errors as of :func:`read_settings`."""
    from paddle_cxr.tasks.pretraining.towers import read_trained

    settings = read_settings(checkpoint)
    model, tokenizer = read_trained(settings.arch, settings.image_shape[0], settings.folder)
    notices = [f"预训练模型：{settings.folder}（{settings.arch.name}，图像塔 {settings.arch.image['name']}，"
               f"输入 {list(settings.image_shape)}）"]
    if settings.meta.get("demo_data"):
        notices.append("!! 这个模型是用模体（phantom）预训练的，结果不是临床结果")
    return Pretrained(model, tokenizer, preprocess_of(settings), settings, notices)


def preprocess_of(settings: PretrainedSettings) -> Preprocess:
    """What a picture became at the training."""
    return Preprocess(image_shape=settings.image_shape, **settings.preprocess.model_dump())


def with_input_of(recipe: R, settings: PretrainedSettings) -> R:
    """A copy of a recipe with the model's ``Global.image_shape`` and ``DataLoader.preprocess`` filled in.

    Raises:
        UserError: the recipe gives another: the model would see pictures it never learned from.
    """
    filled = {}
    for section, key, needed in (("Global", "image_shape", settings.image_shape),
                                 ("DataLoader", "preprocess", settings.preprocess)):
        old = getattr(recipe, section)
        given = getattr(old, key)
        if given is not None and given != needed:
            raise UserError(f"{section}.{key}：与 {settings.folder} 训练时的不同（训练时 {_shown(needed)}，"
                            f"现在 {_shown(given)}）；请删去，由模型决定")
        filled[section] = old.model_copy(update={key: needed})
    return recipe.model_copy(update=filled)


def _shown(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Section) else list(value)


def _model_folder(checkpoint: Path) -> Path:
    # Checkpoints last: of a run that is no finished pre-training, to say what it is.
    for folder in (checkpoint, checkpoint / MODEL, checkpoint.parent if os.path.isfile(checkpoint) else checkpoint,
                   checkpoint / "checkpoints/best", checkpoint / "checkpoints/latest"):
        if os.path.isfile(folder / META):
            return folder
    raise UserError(f"Model.checkpoint：找不到预训练模型 {checkpoint}（应为图文预训练的输出目录，"
                    f"其中有 {MODEL}/{META}）；请先训练，例如 python tools/train.py -c configs/convirt_phantom.yaml")


def _read_meta(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"权重说明文件损坏：{file}（{type(error).__name__}）；请换一个检查点（checkpoint）") from None
    if not isinstance(meta, dict):
        raise UserError(f"权重说明文件损坏：{file}（应为一个对象）；请换一个检查点（checkpoint）")
    return meta
