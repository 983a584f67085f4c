"""The page in a real headless Chromium: click through each tab, in both languages; screenshots are kept.

They lie in ``.pytest_cache/d/screenshots``, or in PADDLE_CXR_SCREENSHOTS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason='the page needs Gradio: pip install -e ".[app]"')
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from serving import page as serving  # noqa: E402
from test_app_parts import StillClassifier, StillFinder  # noqa: E402

from paddle_cxr.app.images import write_phantom  # noqa: E402
from paddle_cxr.app.texts import NOTICE, say  # noqa: E402

pytestmark = pytest.mark.slow
PATIENCE = 30_000  # milliseconds


@pytest.fixture(scope="module")
def shots(request: pytest.FixtureRequest) -> Path:
    """Where screenshots go: not into a temporary folder, which is gone when all tests have passed."""
    given = os.environ.get("PADDLE_CXR_SCREENSHOTS")
    folder = Path(given) if given else request.config.cache.mkdir("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    models = {"Classify": StillClassifier(), "Find": StillFinder()}
    with serving(models, "Draw.Generator={name: PhantomGenerator, size: 128}") as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page just opened; nothing outside this computer was asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, locale="zh-CN")
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    asked: list[str] = []
    opened.on("response", lambda response: asked.append(response.url))
    opened.goto(address)
    opened.wait_for_selector("#notice")
    yield opened
    outside = [url for url in asked if not re.match(r"(http://127\.0\.0\.1[:/]|data:|blob:)", url)]
    context.close()
    assert not outside


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=re.compile(name)).click()


def wait(page: Any, selector: str, text: str) -> None:
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE)


def test_classify_an_example_and_a_broken_file(page, shots, tmp_path):
    playwright.expect(page.locator("#notice")).to_contain_text(NOTICE[:12])
    page.locator(".phantom-covid:visible").click()
    page.wait_for_selector("#classify-seen img")
    page.locator("#classify-button").click()
    page.wait_for_selector("#classify-cam img")
    wait(page, "#classify-probabilities", "新冠肺炎")
    page.screenshot(path=shots / "classify.png", full_page=True)
    page.reload()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    page.locator("#classify-file input[type=file]").set_input_files(broken)
    wait(page, "#classify-message", "broken.png")
    page.screenshot(path=shots / "broken.png", full_page=True)


def test_chinese_is_readable_on_a_computer_without_chinese_fonts(page):
    """The toolkit's own font is there for it, and is the one the page asks for."""
    family = page.evaluate("getComputedStyle(document.querySelector('#notice')).fontFamily")
    assert "CXR Sans SC" in family
    assert page.evaluate("document.fonts.load('16px \"CXR Sans SC\"', '胸片').then(found => found.length)") == 1
    english = page.evaluate("document.fonts.load('16px \"CXR Sans SC\"', 'film').then(found => found.length)")
    assert english == 0


def test_classify_an_upload(page, tmp_path):
    page.locator("#classify-file input[type=file]").set_input_files(write_phantom("viral", 1, tmp_path))
    page.wait_for_selector("#classify-seen img")
    page.locator("#classify-button").click()
    wait(page, "#classify-message", "热图")


def test_find_a_phrase(page, shots):
    tab(page, "Find a phrase")
    page.locator(".phantom-effusion:visible").click()
    page.wait_for_selector("#find-seen img")
    page.locator("#find-button").click()
    page.wait_for_selector("#find-map img")
    wait(page, "#find-message", "最热的地方")
    page.screenshot(path=shots / "find.png", full_page=True)


def test_write_a_report_and_check_an_edited_one(page, shots):
    tab(page, "Write a report")
    page.locator("#write-example-0").click()
    page.locator("#write-button").click()
    wait(page, "#write-message", "通过")
    page.screenshot(path=shots / "write.png", full_page=True)
    page.locator("#write-findings textarea").fill("There is a pneumothorax.")
    page.locator("#recheck-button").click()
    wait(page, "#write-message", "少了")
    page.screenshot(path=shots / "recheck.png", full_page=True)


def test_draw_an_image(page, shots):
    tab(page, "Draw an image")
    page.locator("#draw-button").click()
    page.wait_for_selector("#draw-image img")
    wait(page, "#draw-message", "合成图像")
    page.screenshot(path=shots / "draw.png", full_page=True)


def test_the_language_changes_and_the_notice_stays(page, shots):
    page.locator("#language").get_by_label("English").click()
    playwright.expect(page.locator("#classify-button")).to_contain_text("Classify", timeout=PATIENCE)
    page.locator("#classify-button").click()
    wait(page, "#classify-message", say("no_file", "en"))
    page.mouse.wheel(0, 3000)
    playwright.expect(page.locator("#notice")).to_be_in_viewport()
    page.screenshot(path=shots / "english.png", full_page=True)
