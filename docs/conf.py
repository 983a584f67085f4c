"""The documentation as a site.

    python -m pip install -e ".[docs]"
    python -m sphinx -b html docs build/site -W

The pages are plain Markdown, the same that a code host shows.  Diagrams (mermaid) and formulae (MathJax) are drawn in
the reader's browser by scripts of a public content network; without it their source is shown.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "paddle_cxr"
language = "zh_CN"
extensions = ["myst_parser", "sphinx.ext.mathjax", "site_parts.outside", "sphinxcontrib.mermaid",
              "site_parts.chinese_lines", "site_parts.chinese_search"]
root_doc = "index"
# README.md is the index of the pages on a code host; the site has its own.
exclude_patterns = ["README.md", "_static", "figures", "lesson_figures", "site_parts"]

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 6
myst_dmath_double_inline = True
suppress_warnings = [
    "misc.highlighting_failure",  # parts of programs, "……" for what is left out
]

html_theme = "furo"
html_title = "胸部 X 光 AI 课程"
html_search_language = "zh"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
mermaid_init_config = {"startOnLoad": False, "theme": "neutral", "securityLevel": "strict"}
_FONTS = ('system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", '
          '"WenQuanYi Micro Hei", sans-serif')
_CODE = 'Consolas, "SF Mono", Menlo, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace'
html_theme_options = {
    "announcement": "仅供教学与研究，不能用于诊断",
    "light_css_variables": {"font-stack": _FONTS, "font-stack--monospace": _CODE},
}
