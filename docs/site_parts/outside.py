"""Links out of docs/ (code, recipes, the README) lead to pages of the site that show the file.

The pages stay as they are on the code host, where the same links open the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from docutils import nodes
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from site_parts.chinese_lines import joined

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
FOLDER = "files"  # of the site
# Of what MyST makes, for the theme.
LOOKS = {"table_open": "docutils align-default", "code_inline": "docutils literal notranslate"}


def page_of(file: str) -> str:
    """The page that shows a file, named from the repository's root."""
    return f"{FOLDER}/{file}"


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


class OutsideLinks(SphinxTransform):
    """Of links to files: those out of docs/ become links to :func:`page_of` it; docs/README.md is the first page."""

    default_priority = 10  # before Sphinx collects files to download

    def apply(self, **kwargs: object) -> None:
        links = (addnodes.download_reference, addnodes.pending_xref)
        for node in [node for kind in links for node in self.document.findall(kind)]:
            found, anchor = self._meant(node)
            if found is None or not found.exists() or not found.is_relative_to(ROOT):
                continue  # Sphinx finds it, or says what is wrong with it
            if found == DOCS / "README.md":
                node.replace_self(self._link(node, self.config.root_doc, ""))
            elif found.is_dir():
                node.replace_self(node.children)
            else:
                name = found.relative_to(ROOT).as_posix()
                node.replace_self(self._link(node, page_of(name), anchor, name))

    def _meant(self, node: nodes.Element) -> tuple[Path | None, str]:
        """The file a link leads to, if it is no page of the site, and the anchor."""
        if node.get("reftype") != "myst":
            return None, ""
        if node.get("refdomain") == "doc":  # any Markdown file, as MyST sees it: its path without the suffix
            found = None if node["reftarget"] in self.env.found_docs else Path(f"{DOCS / node['reftarget']}.md")
            return found, node.get("reftargetid") or ""
        file, _, anchor = node["reftarget"].partition("#")
        return (Path(self.env.doc2path(self.env.docname)).parent / file).resolve() if file else None, anchor

    def _link(self, node: nodes.Element, page: str, anchor: str, outside: str = "") -> nodes.reference:
        uri = posixpath.relpath(f"{page}.html", posixpath.dirname(self.env.docname) or ".")
        return nodes.reference("", "", *node.children, internal=True, outside=outside,
                               refuri=f"{uri}#{anchor}" if anchor else uri)


def linked_files(app: Sphinx) -> set[str]:
    """The files that pages of docs/ link to."""
    trees = map(app.env.get_doctree, app.env.found_docs)
    return {node["outside"] for tree in trees for node in tree.findall(nodes.reference) if node.get("outside")}


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """A page for each file that is linked to, also from another such page."""
    if app.builder.format != "html":
        return
    waiting, done = sorted(linked_files(app)), set()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".md"):
            body, more = rendered(text, PurePosixPath(name), lambda code, kind: highlighted(app, code, kind))
            waiting += sorted(more - done)
        else:
            body = f"<h1><code>{name}</code></h1>\n{highlighted(app, text, language_of(name, text))}"
        title = re.search(r"^# (.+)$", text, re.MULTILINE) if name.endswith(".md") else None
        yield page_of(name), {"title": title[1] if title else name, "body": body}, "page.html"


def language_of(name: str, text: str) -> str:
    """What Pygments calls the language of a file."""
    try:
        return get_lexer_for_filename(name, text).aliases[0]
    except (ClassNotFound, IndexError):
        return "text"


def highlighted(app: Sphinx, code: str, language: str) -> str:
    """Code as HTML in the colours of the site."""
    block = app.builder.highlighter.highlight_block(code, language or "text", location=FOLDER)
    return f'<div class="highlight-{language or "text"} notranslate">{block}</div>'


def rendered(text: str, name: PurePosixPath, highlight: Callable[[str, str], str]) -> tuple[str, set[str]]:
    """A Markdown file as HTML, and the other files out of docs/ it links to."""
    markdown = MarkdownIt("commonmark", {"highlight": lambda code, kind, _: highlight(code, kind)}).enable("table")
    markdown.use(anchors_plugin, max_level=6, slug_func=slug)
    outside: set[str] = set()
    tokens = markdown.parse(text)
    _join_lines(tokens)
    for token in [part for block in tokens for part in (block, *(block.children or []))]:
        if token.type in LOOKS:
            token.attrSet("class", LOOKS[token.type])
        attribute = {"link_open": "href", "image": "src"}.get(token.type)
        if attribute and not re.match(r"[a-z]+:|#", str(token.attrGet(attribute))):
            token.attrSet(attribute, _moved(str(token.attrGet(attribute)), name, outside))
    body = markdown.renderer.render(tokens, markdown.options, {})
    body = re.sub(r"<pre><code[^>]*>(<div .*?</div>)\s*</code></pre>", r"\1", body, flags=re.DOTALL)
    return re.sub(r"(<table .*?</table>)", r'<div class="table-wrapper docutils container">\1</div>', body,
                  flags=re.DOTALL), outside


def _join_lines(tokens: list[Token]) -> None:
    """See chinese_lines."""
    for block in tokens:
        parts = block.children or []
        for before, part, after in zip(parts, parts[1:], parts[2:], strict=False):
            if part.type == "softbreak" and not joined(before.content, "\n", after.content):
                part.type, part.tag = "text", ""


def _moved(target: str, name: PurePosixPath, outside: set[str]) -> str:
    """A link of ``name`` as it stands in the page that shows it."""
    file, _, anchor = target.partition("#")
    found = posixpath.normpath(posixpath.join(name.parent, file))
    if found == "docs/README.md":
        page = "index.html"
    elif found.startswith("docs/figures/"):
        page = f"_images/{posixpath.basename(found)}"
    elif found.startswith("docs/") and found.endswith(".md"):
        page = found.removeprefix("docs/").removesuffix(".md") + ".html"
    elif (ROOT / found).is_file():
        outside.add(found)
        page = f"{page_of(found)}.html"
    else:
        return "#"
    uri = posixpath.relpath(page, posixpath.dirname(page_of(str(name))))
    return f"{uri}#{anchor}" if anchor else uri


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(OutsideLinks)
    app.connect("html-collect-pages", file_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
