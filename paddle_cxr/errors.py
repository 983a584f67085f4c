"""The one exception a user is meant to read.

Everything a user can get wrong (a key, a path, a file, a value) is raised as :class:`UserError` with one
Chinese line that names the thing and the way out.  The command-line wrapper in :mod:`paddle_cxr.cli` prints that
line and exits non-zero; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend; ``str(error)`` is one line for people.

    What it quotes may come from an untrusted file, so line breaks and terminal control characters become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else " " for c in message))


def did_you_mean(wrong: str, accepted: Iterable[str]) -> str:
    """Return ``"，是不是 X？"`` for the nearest accepted name, or an empty string when nothing is near."""
    by_lower = {name.lower(): name for name in accepted}
    near = difflib.get_close_matches(str(wrong).lower(), list(by_lower), n=1, cutoff=0.6)
    return f"，是不是 {by_lower[near[0]]}？" if near else ""
