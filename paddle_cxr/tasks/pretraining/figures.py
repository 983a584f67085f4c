"""The figures of a pre-trained model: similarities, retrieval examples, words over the film, embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle

from paddle_cxr import plots
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.evaluation.embedding import Embedded, write_embedding
from paddle_cxr.evaluation.retrieval import ranks, top
from paddle_cxr.tasks.pretraining.scoring import encode_images, encode_texts

if TYPE_CHECKING:
    from paddle_cxr.tasks.pretraining.report import Report

WRITTEN = ("similarity.png", "retrieval_texts.png", "retrieval_images.png", "attention_[0-9].png",
           "attention_[0-9][0-9].png")
"""The figures, as patterns."""
_IN_MATRIX, _EXAMPLES, _HITS, _PROJECTED = 24, 4, 5, 500


def draw(report: Report, scores: np.ndarray, folder: RunFolder) -> None:
    """Draw every figure into ``folder``, and send the embeddings to VisualDL.

    Args:
        report: what was evaluated.
        scores: float [pairs, different texts].
    """
    path = folder.path
    shown = _spread(report.own, _IN_MATRIX)
    texts = [report.whole[place] for place in shown]
    plots.plot_similarity_matrix(scores[np.ix_(shown, report.own[shown])], [_name(report, place) for place in shown],
                                 texts, path / "similarity.png", **report.mark)
    folder.image("similarity", path / "similarity.png", 0)
    _draw_examples(report, scores, path)
    if hasattr(report.model, "attention"):
        _draw_attention(report, path)
    _project(report, folder)


def _spread(own: np.ndarray, count: int) -> np.ndarray:
    """Places of so many pairs, spread evenly, each text once."""
    _, first = np.unique(own, return_index=True)
    first = np.sort(first)
    return first[np.unique(np.linspace(0, len(first) - 1, min(count, len(first))).astype(int))]


def _name(report: Report, place: int) -> str:
    return Path(report.data.source.locate(int(report.positions[place]))).name


def _draw_examples(report: Report, scores: np.ndarray, path: Path) -> None:
    own = report.own
    of_images, of_texts = ranks(scores, own)
    carried = np.unique(own)
    chosen = _spread(own, _EXAMPLES)

    def image(place: int) -> np.ndarray:
        return report.data.images[report.positions[place]]

    found = [(place, top(scores[place], np.arange(scores.shape[1]) == own[place], _HITS)) for place in chosen]
    plots.plot_texts_of_images(
        [plots.TextHits(image(place), report.whole[place], int(of_images[place]),
                        [report.unique[text] for text in texts], scores[place, texts].tolist())
         for place, texts in found], path / "retrieval_texts.png", **report.mark)
    found = [(text, top(scores[:, text], own == text, _HITS)) for text in own[chosen]]
    plots.plot_images_of_texts(
        [plots.ImageHits(report.unique[text], int(of_texts[np.searchsorted(carried, text)]),
                         [image(place) for place in places], scores[places, text].tolist(),
                         (own[places] == text).tolist())
         for text, places in found], path / "retrieval_images.png", **report.mark)


@paddle.no_grad()
def _draw_attention(report: Report, path: Path) -> None:
    """One figure a film: every word of its report over where it looks."""
    for number, place in enumerate(_spread(report.own, report.recipe.DataLoader.Eval.attention_maps)):
        position, text = report.positions[place], report.whole[place]
        words = report.tokenizer.encode(text).spelled
        if not words:  # only characters that the tokenizer drops
            continue
        image = report.data.images[position]
        features = encode_images(report.model, report.data, np.array([position]))
        encoded = encode_texts(report.model, report.tokenizer, [text], 1)[0]
        maps = report.model.attention(features["regions"], encoded["words"], encoded["word_mask"])[0, 0].numpy()
        grid = report.model.region_grid(*image.shape[:2])
        plots.plot_word_attention(image, words, maps[:len(words)].reshape(-1, *grid), path / f"attention_{number}.png",
                                  text=text, **report.mark)


@paddle.no_grad()
def _project(report: Report, folder: RunFolder) -> None:
    """Image and text embeddings for VisualDL's projector."""
    shown = _spread(report.own, _PROJECTED)
    images = [encode_images(report.model, report.data, report.positions[shown[start:start + report.batch]])["global"]
              for start in range(0, len(shown), report.batch)]
    whole = [report.whole[place] for place in shown]
    texts = encode_texts(report.model, report.tokenizer, whole, report.batch)
    records = [report.data.source.records[position] for position in report.positions[shown]]
    labels = ["+".join(name for name, value in record.labels.items() if value) or "-" for record in records]
    files = report.data.files(report.positions[shown])
    folder.embedding(lambda writer: write_embedding(
        writer, "embedding", Embedded(np.concatenate([one.numpy() for one in images]), labels, files),
        Embedded(np.concatenate([one["global"].numpy() for one in texts]), labels, whole)))
