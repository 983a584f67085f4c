"""Every sentence of the page, in Chinese and in English."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from paddle_cxr.data.image import ImageError
from paddle_cxr.errors import UserError

LANGUAGES = ("zh", "en")
NOTICE = "仅供教学与研究，不能用于临床诊断 · For teaching and research only, not for clinical use"

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("胸部 X 光 AI 演示", "Chest X-ray AI demonstration"),
    "intro": ("不要上传患者的图像。上传的文件只在本机用，约一小时后删除。示例都是现画的模体（phantom），不是真实胸片。",
              "Do not upload images of patients. Uploads stay on this machine and are deleted after about an hour. "
              "The examples are phantoms drawn on the spot, not real radiographs."),
    # components
    "file": ("上传一张胸片（PNG、JPEG、TIFF、BMP、WebP、DICOM）",
             "Upload a chest X-ray (PNG, JPEG, TIFF, BMP, WebP, DICOM)"),
    "examples": ("点一个示例（现画的模体 phantom）：", "Click an example (a phantom drawn on the spot):"),
    "seen": ("模型看到的图", "What the model sees"),
    "cam": ("Grad-CAM 热图", "Grad-CAM heat map"),
    "probabilities": ("概率（probability）", "Probabilities"),
    "classify": ("分类", "Classify"),
    "phrase": ("一句话（用训练报告的语言，多为英文）", "A phrase (in the language of the training reports)"),
    "find": ("在图上找", "Find it in the image"),
    "map": ("定位图（grounding map）", "Grounding map"),
    "entities": ("选几个实体（entity）：输入中文或英文可以查找", "Choose entities: type Chinese or English to search"),
    "write": ("写报告", "Write the report"),
    "recheck": ("改一改，再检查", "Check the edited text"),
    "FINDINGS": ("所见（FINDINGS）", "FINDINGS"),
    "IMPRESSION": ("印象（IMPRESSION）", "IMPRESSION"),
    "marked": ("检查：NER 找到的实体", "The check: entities found by NER"),
    "impression": ("印象（IMPRESSION，英文）", "IMPRESSION (in English)"),
    "seed": ("种子（seed）：换一个数，就是另一张、另一份", "Seed: another number gives another result"),
    "draw": ("画图", "Draw"),
    "drawn": ("合成图像（synthetic），不是真实病例", "A synthetic image, not a real case"),
    # what the tabs are about
    "about_classify": ("分类器给出每一类的概率；热图（Grad-CAM）说明分数从图上哪里来。"
                       "热图解释的是模型，不是疾病：热在角上的标记，说明模型在看标记。",
                       "The classifier gives each class a probability; the heat map (Grad-CAM) tells where in the "
                       "image the score comes from. It explains the model, not the disease: heat on a corner "
                       "marker means that the model looks at the marker."),
    "about_find": ("图文预训练的模型比较这句话和图上的每个区域。颜色从这张图自己的最小值到最大值："
                   "总有一处最热，即使图上没有这种征象。",
                   "A model pre-trained on image–report pairs compares the phrase with each region of the image. "
                   "Colours reach from the map's own smallest to its own largest value: something is always the "
                   "warmest, even where the finding is absent."),
    "about_write": ("写作（writer）照选中的实体写出报告，命名实体识别（NER）再找一遍：多了、少了都要重写。"
                    "写好的文字可以改，再检查一次。",
                    "The writer turns the chosen entities into a report, and named-entity recognition (NER) looks "
                    "for them: with one too many or too few it is written again. Edit the text and check it anew."),
    "about_draw": ("生成器（generator）照这段印象画一张胸片。画的是合成图像，不是真实病例。",
                   "The generator draws a radiograph for this impression. The image is synthetic, not a real case."),
    # results
    "demo_model": ("这个模型是用模体（phantom）训练的，对真实胸片的结果没有意义。",
                   "This model was trained on phantoms: what it says of a real radiograph means nothing."),
    "present": ("达到阈值（threshold）的征象：{names}。", "Findings that reach their threshold: {names}."),
    "none_present": ("没有征象达到阈值（threshold）。", "No finding reaches its threshold."),
    "best": ("概率最高的一类：{name}，{probability:.3f}。热图解释的是这一类。",
             "Most probable: {name}, {probability:.3f}. The heat map explains this class."),
    "hottest": ("最热的地方：图的{side}{zone}。图上的数值：最小 {low:.3f}，最大 {high:.3f}。",
                "Warmest place: {zone} {side} of the image. Values of the map: {low:.3f} to {high:.3f}."),
    "left": ("左侧", "left"), "right": ("右侧", "right"),
    "upper": ("上部", "upper"), "middle": ("中部", "middle"), "lower": ("下部", "lower"),
    "passed": ("**通过**：每个实体都找到了，没有多余的。写了 {attempts} 段（两段是一次通过）。",
               "**Passed**: every entity was found and nothing else. {attempts} sections were written "
               "(two: passed at once)."),
    "failed": ("**没有通过**：写了 {attempts} 段，{reason}。", "**Not passed** after {attempts} sections: {reason}."),
    "agrees": ("**{section}**：相符。", "**{section}**: agrees."),
    "missing": ("**{section}**：少了 {names}。", "**{section}**: missing {names}."),
    "extra": ("**{section}**：多了 {names}。", "**{section}**: not asked for: {names}."),
    "asked_for": ("要写的", "asked for"), "not_asked_for": ("多写的", "not asked for"),
    "drawn_by": ("由 {title} 画成，种子（seed）{seed}。", "Drawn by {title}, seed {seed}."),
    "drawn_from": ("模体（phantom）照这些实体画：{names}。", "The phantom was drawn from: {names}."),
    "drawn_from_nothing": ("没有认出任何征象，画的是正常的模体（phantom）。请用英文写，例如 {example}",
                           "No finding was recognised: the phantom is a normal one. Try for example: {example}"),
    "cut": ("句子太长，后面 {tokens} 个词元（token）没有用上。", "Too long: the last {tokens} tokens were not used."),
    "stand_in": ("没有扩散模型，这里用内置模体（phantom）代替（{reason}）。要用扩散模型，先运行：`{command}`",
                 "There is no diffusion model: a built-in phantom stands in ({reason}). For the model run first: "
                 "`{command}`"),
    "no_model": ("这一页还没有模型：{reason}", "This tab has no model yet: {reason}"),
    "make": ("先在项目文件夹里运行下面的命令，再重新启动网页：`{command}`",
             "Run this in the project's folder, then start the page again: `{command}`"),
    "not_in_recipe": ("配方里没有写这一页（{section}）。", "The recipe has no section for this tab ({section})."),
    # refusals
    "busy": ("排队的人太多，请稍后再试。", "Too many requests are waiting; please try again later."),
    "too_long": ("等了 {seconds} 秒还没有算完，请稍后再试。",
                 "No answer within {seconds} seconds; please try again later."),
    "no_file": ("请先上传一张图，或点一个示例。", "Please upload an image or click an example first."),
    "too_large": ("文件有 {size:.1f} MB，最大 {most} MB；请先缩小。",
                  "The file has {size:.1f} MB, more than {most} MB; please make it smaller."),
    "unknown_words": ("模型的词表里没有这句话的任何一个词；请用它训练报告的语言，多为英文。",
                      "The model knows none of these words; please use the language of its training reports."),
    "no_phrase": ("请先写一句话。", "Please write a phrase first."),
    "phrase_too_long": ("文字有 {length} 个字符，最多 {most} 个；请写短一些。",
                        "The text has {length} characters, more than {most}; please shorten it."),
    "no_entities": ("请先选几个实体（entity）。", "Please choose some entities first."),
    "too_many_entities": ("选了 {number} 个实体，最多 {most} 个；请去掉几个。",
                          "{number} entities are chosen, more than {most}; please take some away."),
    "unknown_entity": ("词表里没有实体 {name}。", "The vocabulary has no entity {name}."),
    "contradiction": ("“{one}”和“{other}”互相矛盾，不能写进同一份报告；请去掉一个。",
                      "“{one}” and “{other}” contradict each other; please take one away."),
    "bad_seed": ("种子（seed）应为 0 到 {most} 的整数。", "The seed must be a whole number from 0 to {most}."),
    "not_drawn": ("没有画成：{reason}", "Not drawn: {reason}"),
    "no_dicom": ("这一页读不了 DICOM：要装 pydicom 3 以上。",
                 "This page cannot read DICOM: it needs pydicom 3 or later."),
    "bug": ("程序出错了，没有结果。详细情况在启动网页的终端里。",
            "Something went wrong and there is no result. Details are in the terminal that runs the page."),
    "unreadable": ("图像 {name}：{reason}", "Image {name}: {reason}"),
}

# ImageError.kind in English; its Chinese reason is the program's own.
UNREADABLE = {
    "missing": "the file is not there any more; please upload it again",
    "extension": "this type of file is not supported",
    "empty": "the file is empty (0 bytes)",
    "not_image": "not an image, or a damaged one",
    "truncated": "the file is cut off; please download it again",
    "bomb": "too many pixels; please make it smaller",
    "frames": "holds several frames; please export one of them",
    "depth": "colour of more than 8 bits a channel; please save it as 16-bit grey or 8-bit",
    "dicom": "a DICOM file that cannot be used",
}


class Refusal(UserError):
    """A request that cannot be answered, with a reason in both languages."""

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(say(key, "zh", **values))
        self.key, self.values = key, values


def say(key: str, language: str, **values: Any) -> str:
    """The sentence ``key``, filled in; a language there is none of is Chinese."""
    return TEXTS[key][1 if language == "en" else 0].format(**values)


def explain(error: UserError, language: str) -> str:
    """What to tell the user about an error; the rest of the program speaks Chinese only."""
    if isinstance(error, Refusal):
        return say(error.key, language, **error.values)
    if isinstance(error, ImageError):
        # The reason may quote the file, say its tags.
        reason = UNREADABLE.get(error.kind, "cannot be read") if language == "en" else harmless(error.reason, 300)
        return say("unreadable", language, name=harmless(PurePath(error.path).name), reason=reason)
    return str(error)


def harmless(name: str, most: int = 80) -> str:
    """Words that came from elsewhere, without what Markdown or HTML would take for markup, and not too long."""
    kept = "".join(char if char.isalnum() or char in " .,;:/-（），；：、“”×%" else "-" for char in name)
    return kept if len(kept) <= most else f"{kept[:most - 20]}…{kept[-16:]}"
