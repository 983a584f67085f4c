"""The documentation as a site: no warning, no dead link, readable on a phone and without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from doc_pages import LESSONS, ROOT, script

for needed in ("sphinx", "myst_parser", "furo", "sphinxcontrib.mermaid"):
    pytest.importorskip(needed, reason='the site needs Sphinx: pip install -e ".[docs]"')

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what a browser loads for it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.add(given.get("id") or given.get("name") or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif given.get("src") or tag == "link":
            self.loaded.append(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as docs/README.md says."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d",
                           str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")], capture_output=True,
                          text=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_every_page_is_there(site: Path) -> None:
    for page in [*(ROOT / "docs").glob("*.md"), *LESSONS]:
        if page.name != "README.md":
            assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert (site / "index.html").is_file() and (site / "files/README.md.html").is_file()
    shown = re.sub(r"<[^>]+>", "", (site / "files/paddle_cxr/models/resnet.py.html").read_text(encoding="utf-8"))
    assert "class ResNet(nn.Layer)" in shown


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    dead = []
    for file, page in pages.items():
        for link in page.links + page.loaded:
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            found = (file.parent / path.partition("?")[0]).resolve() if path else file
            if not found.exists() or (found in pages and anchor not in pages[found].anchors):
                dead.append(f"{file.name}: {link}")
    assert not dead, dead


def test_only_the_scripts_of_diagrams_and_formulae_come_from_another_server(pages: dict[Path, Page]) -> None:
    outside = {link for page in pages.values() for link in page.loaded if re.match(r"https?:|//", link)}
    assert all(re.search(r"mathjax|mermaid", link) for link in outside), outside


# --- in a browser ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda page: page.stem)
def test_a_page_fits_and_reads_without_a_network(lesson: Path, width: int, site: Path, browser: Any) -> None:
    """Opened from the disk; PADDLE_CXR_SCREENSHOTS keeps a picture."""
    page = browser.new_page(viewport={"width": width, "height": 900}, locale="zh-CN")
    page.route(re.compile("^https?:"), lambda route: route.abort())
    page.goto((site / f"lessons/{lesson.stem}.html").as_uri())
    text = lesson.read_text(encoding="utf-8")
    assert page.locator(".mermaid").count() == len(re.findall(r"^```mermaid$", text, re.MULTILINE))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if os.environ.get("PADDLE_CXR_SCREENSHOTS"):
        page.screenshot(path=Path(os.environ["PADDLE_CXR_SCREENSHOTS"]) / f"{lesson.stem}_{width}.png", full_page=True)
    page.close()


@pytest.mark.parametrize("question", ["患者划分", "批", "GLoRIA", "置信区间"])
def test_chinese_is_found(question: str, site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((site / "search.html").as_uri() + f"?q={question}")
    page.wait_for_selector("#search-results li a")
    assert any("课" in title for title in page.locator("#search-results li a").all_inner_texts())
    page.close()


# --- the parts ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("before", "text", "after", "wanted"), [
    ("", "一行\n接着", "", "一行接着"), ("：", "\n", "接着", ""), ("GPU", "\n", "接着", "\n"),
    ("完。", "\n", "“引", ""), ("", "AUC\nF1", "", "AUC\nF1"), ("", "\n一", "", "\n一")])
def test_lines_of_chinese_are_joined(before: str, text: str, after: str, wanted: str) -> None:
    script("conf")  # lets site_parts be imported
    from site_parts.chinese_lines import joined

    assert joined(before, text, after) == wanted


def test_chinese_is_cut_into_characters_and_pairs() -> None:
    script("conf")
    from site_parts.chinese_search import pieces

    assert pieces("患者划分，AUC 0.9") == ["患", "者", "划", "分", "患者", "者划", "划分", "auc", "0", "9"]
