"""Figures of a comparison: performance against the label fraction, and bars where nothing varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_cxr.plots.style import COLOURS, drawing, line_style

Point = tuple[float, float, float]  # setting, mean, s.d.


def plot_against_setting(lines: Mapping[str, Mapping[str, Sequence[Point]]], path: str | Path, *, title: str,
                         across: str, metric: str, demo: bool = False) -> Path:
    """A panel for every method, in it a line for every arm, with the s.d. over the seeds as error bars.

    Args:
        lines: method → arm → (setting, mean, s.d.).
        path: PNG to write.
        across: what the settings are.

    Raises:
        UserError: the file cannot be written.
    """
    settings = sorted({point[0] for arms in lines.values() for points in arms.values() for point in points})
    logarithmic = len(settings) > 1 and settings[0] > 0 and settings[-1] / settings[0] >= 10
    with drawing(path, 3.0 + 4.2 * len(lines), 4.0, title=title, demo=demo) as figure:
        panels = figure.subplots(1, len(lines), squeeze=False, sharey=True)[0]
        for axes, (method, arms) in zip(panels, lines.items(), strict=True):
            for number, (arm, points) in enumerate(arms.items()):
                if points:
                    x, mean, sd = zip(*points, strict=True)
                    axes.errorbar(x, mean, yerr=sd, label=arm, marker="o", markersize=4, capsize=3,
                                  **line_style(number))
            if logarithmic:
                axes.set_xscale("log")
            axes.set_xticks(settings, [_tick(value, across) for value in settings])
            axes.minorticks_off()
            axes.set_title(method)
            axes.set_xlabel(across)
        panels[0].set_ylabel(metric)
        # At the side: below, the line that says what a demo figure is would lie under it.
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return Path(path)


def _tick(value: float, across: str) -> str:
    return f"{value:.0%}" if "fraction" in across and value * 100 == round(value * 100) else f"{value:g}"


def plot_bars(bars: Sequence[tuple[str, str, float, float | None]], path: str | Path, *, title: str, metric: str,
              demo: bool = False) -> Path:
    """A group of bars for every method and setting, in it a bar for every arm.

    Args:
        bars: (group, arm, mean, s.d. or None).
        path: PNG to write.

    Raises:
        UserError: the file cannot be written.
    """
    groups, arms = (list(dict.fromkeys(bar[k] for bar in bars)) for k in (0, 1))
    members = {group: [bar[1] for bar in bars if bar[0] == group] for group in groups}
    width = 0.8 / max(map(len, members.values()))
    with drawing(path, max(7.5, 3.0 + 0.9 * len(bars)), 4.0, title=title, demo=demo) as figure:
        axes = figure.subplots()
        for number, arm in enumerate(arms):
            chosen = [bar for bar in bars if bar[1] == arm]
            x = [groups.index(bar[0]) + _place(arm, members[bar[0]]) * width for bar in chosen]
            drawn = axes.bar(x, [bar[2] for bar in chosen], width * 0.92, label=arm,
                             color=COLOURS[number % len(COLOURS)],
                             yerr=[bar[3] or 0.0 for bar in chosen] if any(bar[3] for bar in chosen) else None,
                             capsize=3)
            axes.bar_label(drawn, fmt="%.3f", fontsize=8, padding=2)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(metric)
        axes.margins(y=0.12)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside right center")
    return Path(path)


def _place(arm: str, members: Sequence[str]) -> float:
    """Where an arm's bar stands in its group, in bars from the middle."""
    return members.index(arm) - (len(members) - 1) / 2
