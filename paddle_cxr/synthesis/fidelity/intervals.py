"""How far to trust a share of so many images."""

from __future__ import annotations

import math


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): stays within 0 … 1 and says something even where the share is 0 or 1.

    Args:
        successes: 0 … ``total``; total: ≥ 1.
    """
    z = 1.959963984540054  # the normal distribution's 97.5 % point
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = ((centre + sign * spread) / (1 + z * z / total) for sign in (-1, 1))
    # Exactly 0 and 1 at the ends, which rounding would miss.
    return low if successes else 0.0, high if successes < total else 1.0
