"""The sections of a recipe for image–report pairs; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from paddle_cxr.config import apply_overrides
from paddle_cxr.errors import UserError
from paddle_cxr.registry import check
from paddle_cxr.schema import Component, Section
from paddle_cxr.synthesis.connection import check_url, check_variable
from paddle_cxr.synthesis.division import division
from paddle_cxr.synthesis.engines import EngineKeys
from paddle_cxr.synthesis.quality.base import QUESTIONS, Question
from paddle_cxr.synthesis.quality.rules import Rule
from paddle_cxr.synthesis.quality.schema import SimilaritySection

Stage = Literal["reports", "draw", "judge", "similarity"]
STAGES: tuple[Stage, ...] = ("reports", "draw", "judge", "similarity")
MOST_WORKERS = 256


class PairsGlobal(EngineKeys):
    task: Literal["pairs"] = Field(description="合成什么：pairs = 图文对")
    output_dir: str = Field(min_length=1, description="输出目录：pairs.jsonl、rejected.jsonl、images/、summary.md 等")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子；每张图的种子由它、图文对的 id 和第几次画算出")
    pairs: int | None = Field(None, ge=1, description="只用前多少份报告；null = 全部；增大后可接着做")
    attempts: int = Field(5, ge=1, le=100, description="一对最多画几次；都不通过则被拒")
    stages: list[Stage] = Field(default=list(STAGES), min_length=1,
                                description="做哪几步：reports 写报告、draw 画图、judge 六问、similarity 与坏图比；"
                                            "不写的这一次跳过，已有的六问和比较结果仍算数；以后补上再运行就接着做")
    redo: list[Stage] = Field(default=[], description="这几步（及其后各步）的结果作废重做；续跑时要去掉")
    shard: int = Field(0, ge=0, description="只做第几片（从 0 数）")
    shards: int = Field(1, ge=1, le=10_000, description="一共分几片；用 paddle.distributed.launch 启动时不必写")
    workers: int | Literal["auto"] = Field("auto", description="进程数；本机上不能分给多个进程的组件（模型、接口）总用 "
                                                               "1 个；auto：本机用全部核，Ray 集群放得下多少就多少，"
                                                               "而模型、接口要写了 ray_num_gpus 才用多个")
    chunk: int = Field(32, ge=1, le=10_000, description="每多少张图保存一次")
    resume: bool = Field(True, description="接着上次的结果做；false：旧结果改名保留，从头做")


class ReportsSource(Section):
    recipe: str | None = Field(None, description="先写报告：报告配方的路径，写到 <output_dir>/reports")
    overrides: list[str] = Field(default=[], description="改写那份配方，写法同 -o，例如 [Global.reports=200]")
    file: str | None = Field(None, description="现成的报告：.jsonl、.csv，或 reports/shard*/reports.jsonl 这样的通配")
    pairs: Component | None = Field(None, description="图文对数据集（pairs）的报告：只用文字，图另画；"
                                                      "例如 {name: PhantomPairs, count: 200}")
    vocabulary: str | None = Field(None, description="file 里的实体出自哪个词表，写法同 Vocabulary.file；"
                                                     "null = 自带的；用 recipe 时就是那份配方的词表")


class PairsRules(Section):
    drop: Rule = Field("any", description="一张画好的图怎样算不合格、要重画：any = 六问中有一问不合格（论文）；"
                                          "all = 回答了的都不合格")
    questions: list[Question] = Field(default=list(QUESTIONS), min_length=1, description=(
        "只看哪几问；不看的照样问、照样记下。画图的模型还画不清楚时去掉 sharp，否则一张也留不下"))


class PairsRecipe(Section):
    """A whole recipe for image–report pairs, checked."""

    Global: PairsGlobal
    Reports: ReportsSource = Field(description="报告从哪里来：recipe、file、pairs 三选一")
    Generator: Component = Field(description="画图的")
    Judge: Component | None = Field(None, description="回答六个问题的裁判；不做 judge 时可不写")
    Rules: PairsRules = Field(default_factory=PairsRules, description="裁判的回答怎样算不合格")
    Similarity: SimilaritySection | None = Field(None, description="与坏图库比较；不做 similarity 时可不写")


def check_recipe(recipe: PairsRecipe) -> None:
    """Refuse what cannot work; builds nothing.

    Raises:
        UserError: the first mistake, with its YAML path.
    """
    settings = recipe.Global
    division(settings.shard, settings.shards)
    if settings.workers != "auto" and not 1 <= settings.workers <= MOST_WORKERS:
        raise UserError(f"Global.workers：应不小于 1，不大于 {MOST_WORKERS}，现在是 {settings.workers}")
    reports = recipe.Reports
    if sum(one is not None for one in (reports.recipe, reports.file, reports.pairs)) != 1:
        raise UserError("Reports：recipe（先写报告）、file（现成的报告）和 pairs（图文对的报告）要写一个，且只写一个")
    if reports.pairs is not None:
        source, arguments = check("pairs", reports.pairs, "Reports.pairs")
        if absent := source.missing(**arguments):
            raise UserError(f"Reports.pairs：{absent}")
    if reports.overrides and reports.recipe is None:
        raise UserError("Reports.overrides：只用来改写 Reports.recipe 的配方；读现成的报告时请删去")
    if reports.vocabulary is not None and reports.file is None:
        raise UserError("Reports.vocabulary：只用于 Reports.file；recipe 用它自己的 Vocabulary.file，pairs 没有词表")
    for stage, key in (("judge", "Judge"), ("similarity", "Similarity")):
        if stage in settings.stages and getattr(recipe, key) is None:
            raise UserError(f"{key}：Global.stages 里有 {stage}，就要写 {key}；或从 Global.stages 去掉 {stage}")
    check("generator", recipe.Generator, "Generator", {"vocabulary": None})
    if recipe.Judge is not None:
        check("judge", recipe.Judge, "Judge")
    if recipe.Similarity is not None:
        check("encoder", recipe.Similarity.encoder, "Similarity.encoder")
        if "similarity" in settings.stages and recipe.Similarity.bank is None:
            raise UserError("Similarity.bank：要写坏图库的文件夹；还没有就先运行 tools/analyze.py quality 做一个，"
                            "或从 Global.stages 去掉 similarity")
    _check_secrets(recipe)


def _check_secrets(recipe: PairsRecipe) -> None:
    """Refuse a key in the recipe before ``config.yaml`` would hold it."""
    overrides: dict[str, Any] = {}
    apply_overrides(overrides, recipe.Reports.overrides)
    components = {"Generator": recipe.Generator, "Judge": recipe.Judge, "Writer": overrides.get("Writer")}
    for path, component in components.items():
        for name, refuse in (("url", check_url), ("key_variable", check_variable)):
            if isinstance(component, dict) and isinstance(component.get(name), str):
                refuse(component[name], path)
