"""A line that ends in Chinese goes on in the next without a gap, where browsers would show a space."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# Chinese characters and the punctuation that takes their width.
WIDE = "\u2014\u2018-\u201d\u2026\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
BREAK = re.compile(rf"(?<=[{WIDE}])\n(?=[{WIDE}])")


def joined(before: str, text: str, after: str) -> str:
    """``text``, which stands between the two others, without the line ends between Chinese characters."""
    first, last = before[-1:], after[:1]
    whole = BREAK.sub("", first + text + last)
    return whole[len(first):len(whole) - len(last)]


class ChineseLines(SphinxTransform):
    """Takes the line ends out of paragraphs."""

    default_priority = 900  # what stands beside a text is settled

    def apply(self, **kwargs: object) -> None:
        for text in [text for text in self.document.findall(nodes.Text) if "\n" in text]:
            beside = text.parent
            if isinstance(beside, (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.comment)):
                continue
            place = beside.index(text)
            before = beside[place - 1].astext() if place else ""
            after = beside[place + 1].astext() if place + 1 < len(beside) else ""
            beside[place] = nodes.Text(joined(before, text.astext(), after))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(ChineseLines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
