"""Sections that every recipe with quality control has."""

from __future__ import annotations

from pydantic import Field

from paddle_cxr.schema import Component, Section
from paddle_cxr.synthesis.quality.rules import Rule
from paddle_cxr.synthesis.similarity import THRESHOLD


class RulesSection(Section):
    drop: Rule = Field("any", description="不要一张图的条件：any = 六问中有一问不合格；all = 回答了的都不合格")
    known_bad: Rule = Field("all", description="进坏图库（bank）的条件；论文：六问都不合格")


class SimilaritySection(Section):
    encoder: Component = Field(description="图像 → 特征：RadDino（论文）或 ResNetFeatures")
    bank: str | None = Field(None, description="坏图库文件夹（tools/analyze.py quality 写出的 bank/）")
    threshold: float = Field(THRESHOLD, ge=-1, le=1, description="与任一坏图的余弦相似度超过它就不要；"
                                                                 "论文：RAD-DINO 0.5，别的编码器要校准")
