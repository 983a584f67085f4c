"""The fidelity figures, one after another, over the sets of one recipe."""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image as Picture

from paddle_cxr import __version__
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.files import write_json
from paddle_cxr.plots.fidelity import Closest, plot_closest, plot_fidelity
from paddle_cxr.synthesis.device import enough_memory
from paddle_cxr.synthesis.encoders import Encoder
from paddle_cxr.synthesis.fidelity.agreement import Share, agreement, class_of
from paddle_cxr.synthesis.fidelity.classifier import Classifier, open_classifier
from paddle_cxr.synthesis.fidelity.distances import frechet_distance, kernel_distance, precision_recall
from paddle_cxr.synthesis.fidelity.diversity import draw_pairs, ms_ssim
from paddle_cxr.synthesis.fidelity.features import rows_of
from paddle_cxr.synthesis.fidelity.images import ImageSet, halves
from paddle_cxr.synthesis.fidelity.memorisation import HeldOut, held_out, memorised
from paddle_cxr.synthesis.fidelity.notices import compare_sets, few_images
from paddle_cxr.synthesis.fidelity.report import Figure, Row, write_tables
from paddle_cxr.synthesis.fidelity.schema import FidelityRecipe
from paddle_cxr.synthesis.similarity import Bank, Nearest

_DISTANCES = ("frechet", "kid", "precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Sample:
    """A set with the features of those of its images that can be read.

    Attributes:
        images: the set.
        features: float32 ``[N, D]`` of all, memory-mapped; NaN for the rest.
        positions: int ``[n]``, the images that can be read.
    """

    images: ImageSet
    features: np.ndarray
    positions: np.ndarray

    def all_features(self) -> np.ndarray:
        """float32 ``[n, D]``; copied into memory only where some image cannot be read."""
        whole = len(self.positions) == len(self.features)
        return self.features if whole else np.asarray(self.features[self.positions])

    def read(self, number: int) -> np.ndarray:
        """The ``number``-th image that can be read."""
        return self.images.images[self.positions[number]].read()

    @property
    def groups(self) -> list[Hashable]:
        groups = self.images.groups
        return [groups[position] for position in self.positions]


class Fidelity:
    """The figures of one recipe.

    Args:
        recipe: checked; folder: of the output.
        encoder: the recipe's; real, generated, training: its sets.
    """

    def __init__(self, recipe: FidelityRecipe, folder: RunFolder, encoder: Encoder, real: ImageSet,
                 generated: Sequence[ImageSet], training: ImageSet | None) -> None:
        self._recipe, self._folder, self._encoder = recipe, folder, encoder
        self._settings, self._seed = recipe.Measures, recipe.Global.seed
        self._sets = [real, *generated, *([training] if training else [])]
        self._notices: list[str] = []
        self._real = self._sample(real)
        self._generated = [self._sample(one) for one in generated]
        self._training = self._sample(training) if training else None
        # The floor is the first row: half of the real images against the other half.
        self._rows = [Row(f"{real.name}（另一半）", real.mark, len(self._real.positions))]
        self._rows += [Row(one.images.name, one.images.mark, len(one.positions)) for one in self._generated]
        self._classifier: Classifier | None = None

    def run(self) -> None:
        """Measure everything and write it."""
        for line in compare_sets(self._sets):
            self._notice(line)
        self._measure_distances()
        self._measure_diversity()
        self._measure_memorisation()
        self._measure_agreement()
        self._write()

    # --- features --------------------------------------------------------------------------------------------------

    def _sample(self, images: ImageSet) -> Sample:
        self._folder.say(f"{images.name}：{images.mark} {len(images)} 张")
        features = self._kept(images, self._encoder.encode)
        return Sample(images, features, np.flatnonzero(~np.isnan(features[:, 0])))

    def _kept(self, images: ImageSet, model: Callable[[Sequence[np.ndarray]], np.ndarray]) -> np.ndarray:
        rows, broken = rows_of(images, model, self._folder.path / "features", self._folder.progress)
        if broken:
            self._notice(f"{images.name}：{len(broken)} 张读不了，未计，例如 {broken[0][0]}（{broken[0][1]}）")
        return rows

    def _notice(self, line: str) -> None:
        if line not in self._notices:
            self._notices.append(line)
            self._folder.say(f"!! {line}")

    # --- distances -------------------------------------------------------------------------------------------------

    def _measure_distances(self) -> None:
        """All rows against one half of the real images, with equally many images: what depends on N is comparable."""
        least = self._settings.least
        one, other = halves([self._real.images.images[position] for position in self._real.positions], self._seed)
        if min(len(one), len(other)) < least:
            for row in self._rows:
                row.figures |= dict.fromkeys((*_DISTANCES, "frechet_all"), Figure(
                    why=f"真实图（Real）只有 {len(self._real.positions)} 张，分成两半后不到 {least} 张"))
            return
        rng = np.random.default_rng(self._seed)
        samples = [other, *(rng.permutation(len(sample.positions)) for sample in self._generated)]
        count = min(len(one), *(len(sample) for sample in samples if len(sample) >= least))
        if line := few_images(count, self._encoder.dim):
            self._notice(line)
        reference = self._taken(self._real, one[:count])
        for row, sample, chosen in zip(self._rows, [self._real, *self._generated], samples, strict=True):
            if len(chosen) < least:
                row.figures |= dict.fromkeys((*_DISTANCES, "frechet_all"), Figure(
                    why=f"只有 {len(chosen)} 张，至少要 {least} 张（Measures.least）"))
                continue
            row.compared = count
            row.figures |= self._distances(reference, self._taken(sample, chosen[:count]))
            row.figures["frechet_all"] = Figure(why="一半对一半没有“全部”可言") if sample is self._real else Figure(
                frechet_distance(self._real.all_features(), sample.all_features()))
            self._folder.say(f"{row.name}：Fréchet 距离 {row['frechet'].value:.4g}（各 {count} 张），"
                             f"KID {row['kid'].value:.3g}，精确率 {row['precision'].value:.3f}，"
                             f"召回率 {row['recall'].value:.3f}")

    @staticmethod
    def _taken(sample: Sample, numbers: np.ndarray) -> np.ndarray:
        return np.asarray(sample.features[sample.positions[numbers]], np.float64)

    def _distances(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Figure]:
        settings = self._settings
        size = min(settings.kid_size, len(real) // 2)  # a subset of all would have no spread
        kid, spread = kernel_distance(real, generated, settings.kid_subsets, size, self._seed)
        result = {"frechet": Figure(frechet_distance(real, generated)), "kid": Figure(kid, kid - spread, kid + spread)}
        if len(real) <= max(settings.k, settings.coverage_k):
            why = f"{len(real)} 张不够找第 {max(settings.k, settings.coverage_k)} 近的邻居"
            return result | dict.fromkeys(("precision", "recall", "density", "coverage"), Figure(why=why))
        found = precision_recall(real, generated, settings.k, settings.coverage_k)
        return result | {key: Figure(value) for key, value in found._asdict().items()}

    # --- diversity -------------------------------------------------------------------------------------------------

    def _measure_diversity(self) -> None:
        samples = [self._real, *self._generated]
        by_class = all(_mostly_paired(sample.groups) for sample in samples)
        self._pairing = "同类的图之间（within class）" if by_class else "整组任意两张之间"
        for row, sample in zip(self._rows, samples, strict=True):
            groups = sample.groups if by_class else [None] * len(sample.positions)
            pairs = draw_pairs(groups, self._settings.ssim_pairs, self._seed)
            if not len(pairs):
                row.figures["ms_ssim"] = Figure(why="只有一张图，没有图对")
                continue
            with self._folder.progress(len(pairs), 0, f"MS-SSIM {row.name}") as bar:
                values = []
                for one, other in pairs:
                    values.append(ms_ssim(self._square(sample, one), self._square(sample, other)))
                    bar.update()
            row.figures["ms_ssim"] = Figure(float(np.mean(values)))

    def _square(self, sample: Sample, number: int) -> np.ndarray:
        size = self._settings.ssim_size
        return np.asarray(Picture.fromarray(sample.read(number)).resize((size, size), Picture.Resampling.BILINEAR))

    # --- memorisation ----------------------------------------------------------------------------------------------

    def _measure_memorisation(self) -> None:
        (self._folder.path / "closest.png").unlink(missing_ok=True)  # of a run with other training images
        if self._training is None:
            self._folder.say("没有写 Training（生成器的训练图），不做记忆检查（memorisation）")
            return
        bank = Bank(self._training.all_features())
        if not (limit := self._held_out(bank)):
            return
        found = [memorised(bank, sample.all_features(), limit.threshold) for sample in self._generated]
        own = Share(int(limit.nearest.over(limit.threshold).sum()), len(limit.used))
        for row, one in zip(self._rows, [own, *found], strict=True):
            row.figures["memorised"] = Figure(one.share, *one.interval)
        sheet = [self._closest(self._real, limit.nearest, limit.used, 4)]
        sheet += [self._closest(sample, one.nearest, np.arange(one.total), self._settings.sheet)
                  for sample, one in zip(self._generated, found, strict=True)]
        plot_closest(sheet, limit.threshold, self._folder.path / "closest.png", demo=self._demo)

    def _held_out(self, bank: Bank) -> HeldOut | None:
        settings, real = self._settings, self._real
        why = ""
        try:
            found = held_out(bank, real.all_features(), settings.closest)
        except ValueError:
            why = "真实图（Real）全都在训练图（Training）里"
        else:
            if len(found.used) < len(real.positions):
                self._notice(f"{real.images.name} 有 {len(real.positions) - len(found.used)} 张与训练图相同，"
                             "不是生成器没见过的；记忆检查没有用它们")
            if len(found.used) * settings.closest < 1:
                why = (f"留出的真实图只有 {len(found.used)} 张，说不出最近的 {settings.closest:.0%} 有多近"
                       f"（至少 {int(np.ceil(1 / settings.closest))} 张）")
        if not why:
            return found
        for row in self._rows:
            row.figures["memorised"] = Figure(why=why)
        return None

    def _closest(self, sample: Sample, nearest: Nearest, numbers: np.ndarray, count: int) -> Closest:
        """The pairs with the highest similarity; ``numbers`` are the images that ``nearest`` speaks of."""
        order = np.argsort(-nearest.similarity, kind="stable")[:count]
        return Closest(sample.images.name, sample.images.mark, [
            (sample.read(numbers[row]), self._training.read(nearest.index[row]), float(nearest.similarity[row]))
            for row in order])

    # --- label agreement -------------------------------------------------------------------------------------------

    def _measure_agreement(self) -> None:
        section = self._recipe.Agreement
        if section is None:
            self._folder.say("没有写 Agreement（分类器），不做标签一致性（label agreement）")
            return
        classifier = self._classifier = open_classifier(section.classifier, section.aliases)
        if classifier.demo:
            self._notice("标签一致性的分类器是用模体（phantom）训练的，不代表它认得真实胸片")
        for row, sample in zip(self._rows, [self._real, *self._generated], strict=True):
            wanted = [class_of(image.labels, image.side, classifier.classes, section.negative)
                      for image in sample.images.images]
            if all(one is None for one in wanted):
                row.figures["agreement"] = Figure(why="没有标签，或都对不上分类器的类别（可写 Agreement.aliases）")
                continue
            rows = self._kept(sample.images, partial(_batched, classifier, section.batch_size))
            found = row.agreement = agreement([wanted[position] for position in sample.positions],
                                              rows[sample.positions].argmax(axis=1), classifier.classes)
            row.figures["agreement"] = Figure(found.overall.share, *(found.overall.interval or ()))
            if found.side is not None and found.side.total:
                row.figures["side_agreement"] = Figure(found.side.share, *found.side.interval)

    # --- what is written -------------------------------------------------------------------------------------------

    @property
    def _demo(self) -> bool:
        """Whether phantoms had a part in any of it."""
        return (any(one.phantom for one in self._sets) or "phantom" in self._encoder.title.lower()
                or bool(self._classifier and self._classifier.demo))

    def _write(self) -> None:
        folder, rows = self._folder.path, self._rows
        classes = self._classifier.classes if self._classifier else ()
        plot_fidelity(rows, self._encoder.title, folder / "fidelity.png", demo=self._demo)
        figures = ["fidelity.png"] + ["closest.png"] * any(row["memorised"].value is not None for row in rows)
        page = write_tables(folder, rows, classes, self._facts(), self._notices, figures)
        write_json(folder / "metrics.json", self._circumstances() | {
            "notices": self._notices, "rows": [row.to_json(classes) for row in rows]})
        self._folder.say(f"表、图和说明写到 {folder}，先看 {page}")

    def _facts(self) -> dict[str, str]:
        names = "；".join(f"{one.name} {one.mark} {len(one)} 张" for one in self._sets)
        facts = {"图像": names, "编码器（encoder）": f"{self._encoder.title}，特征 {self._encoder.dim} 维",
                 "MS-SSIM": f"{self._settings.ssim_pairs} 对，{self._pairing}，缩放到 {self._settings.ssim_size}²"}
        if self._demo:
            facts["注意"] = "**含内置模体（phantom），结果只说明代码能运行，不是临床结果**"
        if self._classifier:
            facts["分类器（classifier）"] = self._classifier.title
        return facts

    def _circumstances(self) -> dict[str, Any]:
        import paddle

        return {"task": "fidelity", "demo_data": self._demo,
                "datasets": [{"name": one.name, "mark": one.mark, "images": len(one),
                              "fingerprint": one.fingerprint(), "counts": one.counts()} for one in self._sets],
                "encoder": {"title": self._encoder.title, "dim": self._encoder.dim},
                "classifier": self._classifier.title if self._classifier else None,
                "measures": self._settings.model_dump(), "ms_ssim_pairs": self._pairing,
                "seed": self._seed, "device": paddle.get_device(),
                "versions": {"paddle_cxr": __version__, "paddle": paddle.__version__, "numpy": np.__version__,
                             "python": platform.python_version()}}


def _mostly_paired(groups: Sequence[Hashable]) -> bool:
    """Whether the kind of every image is known, and nearly all have another of their kind."""
    sizes = {group: groups.count(group) for group in set(groups)}
    return None not in sizes and sum(size for size in sizes.values() if size > 1) >= 0.9 * len(groups)


def _batched(classifier: Classifier, size: int, images: Sequence[np.ndarray]) -> np.ndarray:
    with enough_memory("Agreement.batch_size", "请改小它；重新运行同一条命令就接着算"):
        return np.concatenate([classifier.probabilities(images[start:start + size])
                               for start in range(0, len(images), size)])
