"""What phantoms can show of a vocabulary, so that reports are sampled that a phantom can illustrate truly.

A phantom shows the findings that have a drawer, in the lungs and round them, and nothing else: no fracture, no tube.
Sampled are therefore

* abnormalities and diseases with a drawer;
* what is normal or denied, where it contradicts one of these ("clear lungs", "no pleural effusion").  A denial of what
  no phantom ever shows would be true too, but most reports would be made of them; and "intact sternal wires" would not;
* the parts of the lungs that tell a side, a zone or a region: they say where findings are drawn.

Several findings share a drawer, so more contradicts than in words: an opacity is drawn as a consolidation, and the film
then shows one, whatever the report denies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from paddle_cxr.data.phantom import DRAWERS
from paddle_cxr.data.phantom.findings import Drawer
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.generators.places import Spot, is_lung_place, spots_in, words_of
from paddle_cxr.synthesis.sampling import Choice
from paddle_cxr.synthesis.vocabulary import Vocabulary, fold


def drawable(vocabulary: Vocabulary) -> Choice:
    """What phantoms can show of ``vocabulary``, and what contradicts each other in words or in the picture.

    Raises:
        UserError: none of its findings has a drawer.
    """
    drawers = {position: DRAWERS[entity.drawer] for position, entity in enumerate(vocabulary)
               if entity.type in ("abnormality", "disease") and entity.drawer in DRAWERS}
    if not drawers:
        raise UserError(f"Sampler.only：词表（vocabulary）{vocabulary.name} 里没有模体画得出的征象；"
                        f"请给词表的条目写上 drawer（{'、'.join(sorted(DRAWERS))}），或去掉 only: drawable")
    absent = _absent(vocabulary, drawers)
    places = {position: spots for position, entity in enumerate(vocabulary)
              if entity.type == "anatomy" and is_lung_place(entity.en) and (spots := spots_in(words_of(entity.en)))}
    pairs = [(position, other) for position, names in absent.items()
             for other, drawer in drawers.items() if drawer.name in names]
    pairs += [(position, place) for position, drawer in drawers.items()
              for place, spots in places.items() if not _can_lie(vocabulary.entities[position], drawer, spots)]
    return Choice(frozenset({*drawers, *absent, *places}), _joined(vocabulary, pairs))


def _absent(vocabulary: Vocabulary, drawers: dict[int, Drawer]) -> dict[int, set[str]]:
    """What is normal or denied → names of the drawers whose findings it contradicts; nothing that contradicts none."""
    found = {position: {drawers[other].name for other in vocabulary.contradictions.get(position, ())
                        if other in drawers}
             for position, entity in enumerate(vocabulary) if entity.type in ("non-abnormality", "non-disease")}
    return {position: names for position, names in found.items() if names}


def _can_lie(finding: Entity, drawer: Drawer, spots: Iterable[Spot]) -> bool:
    """Whether a finding can be drawn in a part of the lungs, should a report put it there.

    Oedema and a large heart, always on both sides, are put in no part and go with any; but an opacity is somewhere, so
    "bat-wing opacities at the right lung apex" have to be kept from being written.
    """
    if drawer.sides == ("bilateral",) and "opacity" not in fold(finding.en).split():
        return True
    return all(spot.side in (None, *drawer.sides) and spot.zone in (None, *drawer.zones)
               and spot.region in (None, *drawer.regions) for spot in spots)


def _joined(vocabulary: Vocabulary, pairs: Iterable[tuple[int, int]]) -> dict[int, frozenset[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for position, others in vocabulary.contradictions.items():
        found[position] |= others
    for one, other in pairs:
        found[one].add(other)
        found[other].add(one)
    return {position: frozenset(others) for position, others in found.items()}
