"""ConVIRT's and GLoRIA's formulas, written out in plain loops as the papers have them, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (
        math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def convirt(v: np.ndarray, u: np.ndarray, tau: float, lam: float) -> float:
    """ConVIRT, equations 2–4: images v [N, D], texts u [N, D]."""
    v, u = np.asarray(v, np.float64), np.asarray(u, np.float64)
    n, total = len(v), 0.0
    for i in range(n):
        image_to_text = -math.log(math.exp(cosine(v[i], u[i]) / tau)
                                  / sum(math.exp(cosine(v[i], u[k]) / tau) for k in range(n)))
        text_to_image = -math.log(math.exp(cosine(v[i], u[i]) / tau)
                                  / sum(math.exp(cosine(v[k], u[i]) / tau) for k in range(n)))
        total += lam * image_to_text + (1 - lam) * text_to_image
    return total / n


def matching(regions: np.ndarray, words: np.ndarray, g1: float, g2: float) -> float:
    """AttnGAN's equations 7–10, which GLoRIA takes over: one image [R, D], one text, its real words only [W, D]."""
    s = [[float(np.dot(t, v)) for v in regions] for t in words]
    over_words = [[1 / sum(math.exp(s[k][j] - s[i][j]) for k in range(len(words))) for j in range(len(regions))]
                  for i in range(len(words))]
    total = 0.0
    for i, t in enumerate(words):
        exponents = [math.exp(g1 * one) for one in over_words[i]]
        a = [one / sum(exponents) for one in exponents]
        c = sum(weight * v for weight, v in zip(a, regions, strict=True))
        total += math.exp(g2 * cosine(c, t))
    return math.log(total ** (1 / g2))


def gloria(regions: Sequence[np.ndarray], image: np.ndarray, words: Sequence[np.ndarray], text: np.ndarray,
           gammas: Sequence[float]) -> float:
    """Global and local, both directions, weights 1."""
    tables = gloria_tables(regions, image, words, text, gammas)
    n, total = len(image), 0.0
    for table in tables.values():
        for i in range(n):
            total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[i][k]) for k in range(n))) / n
            total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[k][i]) for k in range(n))) / n
    return total


def gloria_tables(regions: Sequence[np.ndarray], image: np.ndarray, words: Sequence[np.ndarray], text: np.ndarray,
                  gammas: Sequence[float]) -> dict[str, list[list[float]]]:
    """The similarities of every image (row) with every text."""
    regions, words = ([np.asarray(one, np.float64) for one in side] for side in (regions, words))
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    return {"local": [[gammas[2] * matching(v, t, *gammas[:2]) for t in words] for v in regions],
            "global": [[gammas[2] * cosine(v, t) for t in text] for v in image]}
