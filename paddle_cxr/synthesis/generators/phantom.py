"""The built-in generator: draws the phantom that a report describes, with no weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from paddle_cxr.data.phantom import DRAWERS, Finding, draw_image
from paddle_cxr.data.phantom.findings import Drawer
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.entities import Entity, Span
from paddle_cxr.synthesis.generators.base import Drawn, ImageRequest
from paddle_cxr.synthesis.generators.places import Spot, is_lung_place, merge, places_of_findings, spots_in, words_of
from paddle_cxr.synthesis.ner.dictionary import DictionaryNER
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary


@register("generator")
class PhantomGenerator:
    """Draws what a report's entities say (``drawer`` in the vocabulary), where its text says.

    Every abnormality and disease of the report is drawn; what is denied or normal needs no drawing.  The prompt tells
    side and zone (:mod:`paddle_cxr.synthesis.generators.places`); where it does not, the report's anatomy does, as far
    as it agrees with itself; what stays open, or what the drawer cannot do, is drawn in one of the finding's usual
    places.  A finding without a drawer is an error: an image without it would contradict its report.

    Phantoms are drawings: a figure measured on them says that the code works, never that a model does.

    Args:
        size: of the square image in pixels, 32–2048.
        vocabulary: of the reports; the shipped one without.

    Raises:
        UserError: ``size`` out of range.
    """

    title = "phantom"
    many_processes = True

    def __init__(self, size: int = 224, vocabulary: Vocabulary | None = None) -> None:
        if not 32 <= size <= 2048:
            raise UserError(f"Generator.size：应在 32 与 2048 之间，现在是 {size}")
        self._size = size
        self._vocabulary = vocabulary or load_vocabulary()
        self._ner = DictionaryNER(self._vocabulary)

    def draw(self, requests: Sequence[ImageRequest]) -> list[Drawn]:
        """One image a request, uint8 ``[size, size]``, from the request alone: its seed is the patient and the film."""
        texts = self._ner.find([request.prompt for request in requests])
        return [self._draw(request, spans) for request, spans in zip(requests, texts, strict=True)]

    def _draw(self, request: ImageRequest, spans: Sequence[Span]) -> Drawn:
        try:
            entities = [self._vocabulary[one["id"], one["type"]] for one in request.entities]
        except KeyError as error:
            return Drawn(error=f"词表 {self._vocabulary.name} 里没有实体 {error}")
        present = [entity for entity in entities if entity.type in ("abnormality", "disease")]
        undrawable = [entity.id for entity in present if entity.drawer not in DRAWERS]
        if undrawable:
            return Drawn(error=f"模体画不出（no drawer）：{'、'.join(undrawable)}；采样时只用词表中有 drawer 的征象")
        places = places_of_findings(request.prompt, spans, self._vocabulary)
        common = _common_spot(entities)
        spots: dict[str, list[Spot]] = {}  # drawer → where: an opacity and a consolidation may be the same thing
        for entity in present:
            for told in places.get(entity.key) or [common]:
                for spot in _possible(DRAWERS[entity.drawer], told):
                    merge(spots.setdefault(entity.drawer, []), spot)
        findings = [Finding(name, spot.side, spot.zone, spot.region) for name in spots for spot in spots[name]]
        return Drawn(draw_image(findings, seed=request.seed, index=0, size=self._size))


def _common_spot(entities: Iterable[Entity]) -> Spot:
    """What the report's parts of the lung agree on."""
    told = [spot for entity in entities if entity.type == "anatomy" and is_lung_place(entity.en)
            for spot in spots_in(words_of(entity.en))]
    values = ({getattr(spot, name) for spot in told} - {None} for name in ("side", "zone", "region"))
    return Spot(*(one.pop() if len(one) == 1 else None for one in values))


def _possible(drawer: Drawer, told: Spot) -> list[Spot]:
    """What a drawer can do of a place: the rest is left open, and one that draws a single side is used for each."""
    spot = Spot(told.side if told.side in drawer.sides else None, told.zone if told.zone in drawer.zones else None,
                told.region if told.region in drawer.regions else None)
    if told.side == "bilateral" and spot.side is None:
        return [replace(spot, side=side) for side in drawer.sides]
    return [spot]
