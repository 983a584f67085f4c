"""Lesson 6: reports by a language model, and their check."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def rejected_after_attempts(path: Path) -> None:
    """How many reports are lost to a writer that errs so often, by how many times it may try."""
    from paddle_cxr.plots.style import drawing, line_style

    failing = np.linspace(0.02, 0.8, 40)
    with drawing(path, 6.4, 4, title="多写几次，被拒的就少", demo=False) as sheet:
        axes = sheet.subplots()
        for number, attempts in enumerate((1, 2, 3, 5)):
            axes.semilogy(failing, 1 - (1 - failing**attempts) ** 2, label=f"每段最多写 {attempts} 次",
                          **line_style(number))
        axes.set_ylim(1e-4, 1)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("写一段失败的机会 p")
        axes.set_ylabel("一份（两段）报告被拒的机会")
        axes.legend(loc="lower right")
