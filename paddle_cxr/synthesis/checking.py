"""Does a text mention exactly the entities it was written for?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from paddle_cxr.synthesis.entities import OPPOSITE, Entity, Key, Span


@dataclass(frozen=True, slots=True)
class Difference:
    """What a text lacks and what it has too much; both empty when it passes.

    Attributes:
        missing: entities that were asked for and are not mentioned.
        extra: keys that are mentioned and were not asked for.
    """

    missing: tuple[Entity, ...]
    extra: tuple[Key, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)

    def feedback(self) -> str:
        """For the writer's next attempt, in English."""
        turned = {(key_id, OPPOSITE.get(key_type, key_type)) for key_id, key_type in self.extra}
        wrong_way = [entity for entity in self.missing if entity.key in turned]
        absent = [entity for entity in self.missing if entity.key not in turned]
        known = {entity.key for entity in wrong_way}
        extra = [key for key in self.extra if (key[0], OPPOSITE.get(key[1], key[1])) not in known]
        parts = []
        if absent:
            parts.append("Not mentioned: " + "; ".join(entity.en for entity in absent) + ".")
        for entity in wrong_way:
            stated = "stated as absent" if entity.denies else "stated as present"
            parts.append(f"Must be {stated}: {entity.en}.")
        if extra:
            parts.append("Mentioned but not asked for: " + "; ".join(name.replace("_", " ") for name, _ in extra) + ".")
        return " ".join(parts)

    def reason(self) -> str:
        """For the acceptance report: ``missing a/disease b/anatomy; extra c/disease``."""
        sides = {"missing": [entity.key for entity in self.missing], "extra": self.extra}
        return "; ".join(f"{side} {' '.join('/'.join(key) for key in keys)}" for side, keys in sides.items() if keys)


def difference(wanted: Mapping[Key, Entity], spans: Iterable[Span]) -> Difference:
    """Compare by (id, type): how often and in which order something is mentioned does not matter."""
    found = {span.key for span in spans}
    return Difference(tuple(entity for key, entity in wanted.items() if key not in found),
                      tuple(sorted(found - wanted.keys())))
