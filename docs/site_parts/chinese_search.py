"""Searching Chinese without a dictionary: the index has each character and each two neighbours, and so has a question.

Sphinx's own Chinese search cuts the pages into words (with jieba) but not what the reader types, so that a question of
two words finds nothing.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.search import SearchLanguage

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
RUNS = re.compile(rf"[{HAN}]+|[^\W{HAN}]+")


def pieces(text: str) -> list[str]:
    """Of a run of Chinese its characters and pairs, of anything else the words."""
    found = []
    for run in RUNS.findall(text):
        if re.match(rf"[{HAN}]", run):
            found += [*run, *(run[i:i + 2] for i in range(len(run) - 1))]
        else:
            found.append(run.lower())
    return found


class SearchChinese(SearchLanguage):
    """Sphinx's interface for the index (here) and for the question (in the browser)."""

    lang = "zh"
    language_name = "Chinese"
    js_splitter_code = r"""
function splitQuery(query) {
  const found = [];
  for (const run of query.match(/[\u3400-\u4dbf\u4e00-\u9fff]+|[^\s\p{P}\p{S}\u3400-\u4dbf\u4e00-\u9fff]+/gu) || []) {
    if (!/^[\u3400-\u4dbf\u4e00-\u9fff]/.test(run)) found.push(run.toLowerCase());
    else if (run.length === 1) found.push(run);
    else for (let i = 0; i + 1 < run.length; i++) found.push(run.slice(i, i + 2));
  }
  return found;
}
"""

    def split(self, input: str) -> list[str]:
        return pieces(input)

    def word_filter(self, word: str) -> bool:
        return not word.isascii() or (len(word) > 1 and not word.isdigit())


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_search_language(SearchChinese)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
