"""Every figure of the toolkit, with Chinese labels that show on any machine.

Each ``plot_*(data…, path, demo=False)`` draws one PNG, writes it atomically and returns its path.  ``demo=True`` puts
"built-in phantoms, no clinical result" under the figure.  matplotlib is imported when the first figure is drawn and
used through its ``Figure`` objects, so neither the backend nor the user's settings change.
"""

from __future__ import annotations

from paddle_cxr.plots.classification import (
    plot_calibration,
    plot_confusion_matrix,
    plot_precision_recall,
    plot_roc,
)
from paddle_cxr.plots.curves import plot_cross_validation, plot_training_curves
from paddle_cxr.plots.entities import CorpusFigures, plot_lorenz, plot_ranks, plot_top_entities, plot_types
from paddle_cxr.plots.gallery import Example, plot_mistakes, plot_prediction, plot_samples, plot_sheet
from paddle_cxr.plots.pretraining import (
    ImageHits,
    TextHits,
    plot_images_of_texts,
    plot_similarity_matrix,
    plot_texts_of_images,
    plot_word_attention,
)
from paddle_cxr.plots.similarity import plot_similarity
from paddle_cxr.plots.style import use_chinese_font

__all__ = [
    "CorpusFigures",
    "Example",
    "ImageHits",
    "TextHits",
    "plot_calibration",
    "plot_confusion_matrix",
    "plot_cross_validation",
    "plot_images_of_texts",
    "plot_lorenz",
    "plot_mistakes",
    "plot_precision_recall",
    "plot_prediction",
    "plot_ranks",
    "plot_roc",
    "plot_samples",
    "plot_sheet",
    "plot_similarity",
    "plot_similarity_matrix",
    "plot_texts_of_images",
    "plot_top_entities",
    "plot_training_curves",
    "plot_types",
    "plot_word_attention",
    "use_chinese_font",
]
