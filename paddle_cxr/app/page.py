"""The Gradio page: components, and which handler each click calls.  The words are in ``texts``, the work elsewhere.

Written for Gradio 5 and 6, which take some options in different places (:func:`accepted`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr

from paddle_cxr.app.draw import EXAMPLES as IMPRESSIONS
from paddle_cxr.app.handlers import Handlers
from paddle_cxr.app.images import PHANTOMS
from paddle_cxr.app.schema import AppRecipe
from paddle_cxr.app.tabs import CLASSIFY, DRAW, FIND, QUICK, WRITE
from paddle_cxr.app.texts import NOTICE, say
from paddle_cxr.data.phantom.names import NAMES
from paddle_cxr.plots.style import FONT_FAMILY

PHRASES = ("There is a pleural effusion.", "There is a pneumothorax with a visible pleural line.",
           "The heart is enlarged.", "There is airspace consolidation in the lung.")
# The notice stays in sight while the page scrolls.
CSS = """
#notice {position: sticky; top: 0; z-index: 100; background: #fff3cd; border: 1px solid #d9a400; border-radius: 6px;
         padding: 6px 12px;}
#notice, #notice * {color: #664d03; font-weight: 600;}
footer {display: none !important;}
"""
# The reader's computer has one of the first; where not, the browser asks this server for the toolkit's own.
FONT_ROUTE = "/cxr-sans-sc.otf"
_FONTS = ("Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", FONT_FAMILY, "sans-serif")
_MONOSPACED = ("Consolas", "Menlo", FONT_FAMILY, "monospace")
_FONT_FACE = """<style>
@font-face {{font-family: "{family}"; src: url("{address}") format("opentype"); unicode-range: U+2E80-FFEF;}}
</style>"""  # the range of Chinese: a page in English never fetches it

_MARKS = {say(key, language): colour for key, colour in (("asked_for", "green"), ("not_asked_for", "red"))
          for language in ("zh", "en")}


def look(root_path: str) -> dict[str, Any]:
    """Theme, style sheet and fonts, none of which comes from the net."""
    # Named as strings, Gradio would look for them among its own files, and hide those of the computer.
    fonts, monospaced = (tuple(map(gr.themes.Font, names)) for names in (_FONTS, _MONOSPACED))
    return {"theme": gr.themes.Default(font=fonts, font_mono=monospaced), "css": CSS,
            "head": _FONT_FACE.format(family=FONT_FAMILY, address=root_path + FONT_ROUTE)}


def accepted(function: Callable, **options: Any) -> dict[str, Any]:
    """Those of ``options`` that this release's ``function`` has parameters for."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


class Page:
    """Builds the page; ``blocks`` is the result.

    Args:
        recipe: the checked recipe.
        handlers: what clicks do.
    """

    def __init__(self, recipe: AppRecipe, handlers: Handlers) -> None:
        self._do, self._waiting = handlers, recipe.Server.waiting
        self._first = recipe.Global.language
        # What changes with the language: component, the property, and its value in a language.
        self._worded: list[tuple[Any, str, Callable[[str], str]]] = []
        options = accepted(gr.Blocks, title=say("title", self._first), analytics_enabled=False,
                           **look(recipe.Server.root_path))
        with gr.Blocks(**options) as self.blocks:
            gr.Markdown(NOTICE, elem_id="notice")
            self._text("title", before="# ")
            self._language = gr.Radio([("中文", "zh"), ("English", "en")], value=self._first,
                                      label="语言 · Language", elem_id="language")
            self._text("intro")
            with gr.Tabs():
                for name, title, build in ((CLASSIFY, "分类 · Classify", self._classify),
                                           (FIND, "找一句话 · Find a phrase", self._find),
                                           (WRITE, "写报告 · Write a report", self._write),
                                           (DRAW, "画图 · Draw an image", self._draw)):
                    with gr.Tab(title, elem_id=f"tab-{name.lower()}"):
                        self._tab(name, build)
            self._language.change(self._reword, self._language, [one for one, _, _ in self._worded], queue=False,
                                  **_private(self._language.change))
        self.blocks.queue(max_size=recipe.Server.queue, default_concurrency_limit=self._waiting, api_open=False)

    # --- tabs ------------------------------------------------------------------------------------------------------

    def _tab(self, name: str, build: Callable[[], None]) -> None:
        tab = self._do.tabs[name]
        self._text(f"about_{name.lower()}")
        if tab.opened:
            build()
        else:
            self._worded_as(gr.Markdown(tab.explanation(self._first), elem_id=f"no-{name.lower()}"), "value",
                            tab.explanation)

    def _classify(self) -> None:
        with gr.Row():
            with gr.Column():
                file = self._upload("classify")
                button = self._button("classify", "classify-button")
            seen = self._image("seen", "classify-seen")
            cam = self._image("cam", "classify-cam")
            shares = self._labelled("probabilities", gr.Label, elem_id="classify-probabilities")
        message = gr.Markdown(elem_id="classify-message")
        self._phantoms(file, seen, message)
        self._on(button, CLASSIFY, self._do.classify, [file], [seen, cam, shares, message], "classify")

    def _find(self) -> None:
        with gr.Row():
            with gr.Column():
                file = self._upload("find")
                phrase = self._labelled("phrase", gr.Textbox, value=PHRASES[0], max_lines=2, elem_id="find-phrase")
                self._clickable(PHRASES, phrase)
                button = self._button("find", "find-button")
            seen = self._image("seen", "find-seen")
            found = self._image("map", "find-map")
        message = gr.Markdown(elem_id="find-message")
        self._phantoms(file, seen, message)
        self._on(button, FIND, self._do.find, [file, phrase], [seen, found, message], "find")

    def _write(self) -> None:
        reporter = self._do.tabs[WRITE].model
        entities = self._labelled("entities", gr.Dropdown, choices=reporter.choices, multiselect=True,
                                  elem_id="write-entities")
        with gr.Row():
            for number, values in enumerate(reporter.examples):
                names = " + ".join(value.partition("/")[0].replace("_", " ") for value in values)
                self._filling(gr.Button(names, size="sm", elem_id=f"write-example-{number}"), values, entities)
        with gr.Row():
            seed = self._seed("write")
            button = self._button("write", "write-button")
        with gr.Row():
            texts = [self._labelled(name, gr.Textbox, lines=5, elem_id=f"write-{name.lower()}")
                     for name in ("FINDINGS", "IMPRESSION")]
        again = self._button("recheck", "recheck-button", "secondary")
        with gr.Row():
            marked = [self._labelled("marked", gr.HighlightedText, show_legend=True, color_map=_MARKS,
                                     elem_id=f"marked-{name}")
                      for name in ("findings", "impression")]
        message = gr.Markdown(elem_id="write-message")
        self._on(button, WRITE, self._do.write, [entities, seed], [*texts, *marked, message], "write")
        self._on(again, WRITE, self._do.recheck, [entities, *texts], [*marked, message], "recheck")

    def _draw(self) -> None:
        self._worded_as(gr.Markdown(self._do.stand_in(self._first), elem_id="draw-stand-in"), "value",
                        self._do.stand_in)
        with gr.Row():
            with gr.Column():
                impression = self._labelled("impression", gr.Textbox, value=IMPRESSIONS[0], lines=2,
                                            elem_id="draw-impression")
                self._clickable(IMPRESSIONS, impression)
                seed = self._seed("draw")
                button = self._button("draw", "draw-button")
            image = self._image("drawn", "draw-image")
        message = gr.Markdown(elem_id="draw-message")
        self._on(button, DRAW, self._do.draw, [impression, seed], [image, message], "draw")

    # --- components ------------------------------------------------------------------------------------------------

    def _upload(self, name: str) -> Any:
        # A plain file: the toolkit reads it itself, DICOM too, and says in the user's language what is wrong with it.
        return self._labelled("file", gr.File, type="filepath", file_count="single", height=140,
                              elem_id=f"{name}-file")

    def _image(self, key: str, identity: str) -> Any:
        return self._labelled(key, gr.Image, interactive=False, elem_id=identity)

    def _seed(self, name: str) -> Any:
        return self._labelled("seed", gr.Number, value=0, precision=0, minimum=0, elem_id=f"{name}-seed")

    def _button(self, key: str, identity: str, variant: str = "primary") -> Any:
        button = gr.Button(say(key, self._first), variant=variant, elem_id=identity)
        return self._worded_as(button, "value", lambda language: say(key, language))

    def _text(self, key: str, before: str = "") -> None:
        self._worded_as(gr.Markdown(before + say(key, self._first)), "value",
                        lambda language: before + say(key, language))

    def _labelled(self, key: str, component: type, **options: Any) -> Any:
        made = component(label=say(key, self._first), **options)
        return self._worded_as(made, "label", lambda language: say(key, language))

    def _worded_as(self, component: Any, name: str, words: Callable[[str], str]) -> Any:
        self._worded.append((component, name, words))
        return component

    # --- clicks ----------------------------------------------------------------------------------------------------

    def _on(self, button: Any, tab: str, handler: Callable, inputs: list, outputs: list, name: str) -> None:
        """A click that asks a model; each tab has its own line, a quick one in its worker alone."""
        button.click(handler, [*inputs, self._language], outputs, api_name=name, concurrency_id=tab,
                     concurrency_limit=self._waiting, queue=tab not in QUICK)

    def _phantoms(self, file: Any, seen: Any, message: Any) -> None:
        """A row of phantoms to click, and a look at what was uploaded."""
        file.upload(self._do.preview, [file, self._language], [seen, message], **_private(file.upload))
        self._text("examples")
        with gr.Row():
            for kind in PHANTOMS:
                chinese, english = NAMES.get(kind, ("正常", "Normal"))
                button = gr.Button(f"{chinese} {english}", size="sm", elem_classes=f"phantom-{kind}")
                button.click(_asking(self._do.phantom, kind), self._language, [file, seen, message],
                             **_private(button.click))

    def _clickable(self, texts: tuple[str, ...], box: Any) -> None:
        for text in texts:
            self._filling(gr.Button(text, size="sm"), text, box)

    def _filling(self, button: Any, value: Any, target: Any) -> None:
        button.click(lambda: value, None, target, queue=False, **_private(button.click))

    def _reword(self, language: str) -> list:
        return [gr.update(**{name: words(language)}) for _, name, words in self._worded]


def _private(listener: Callable) -> dict[str, Any]:
    """Options that keep a click out of the page's programming interface."""
    return accepted(listener, api_visibility="private") or {"api_name": False}


def _asking(handler: Callable[[str, str], tuple], kind: str) -> Callable[[str], tuple]:
    return lambda language: handler(kind, language)
