"""What reports can be about: the list of entities that sets are sampled from and that a check looks for.

The shipped list (the ``.yaml`` files beside this module, one a type) was written for this project, with Chinese
names, synonyms and contradictions.  A user's own comes as the same kind of files, or as a CSV of names and types, as
mined from a report corpus (:func:`load_vocabulary`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import combinations
from operator import attrgetter
from pathlib import Path

import numpy as np

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.synthesis.entities import OPPOSITE, TYPES, Entity, Key
from paddle_cxr.synthesis.vocabulary.names import contraries, fold
from paddle_cxr.synthesis.vocabulary.reading import read_entities

__all__ = ["Vocabulary", "fold", "load_vocabulary"]

_ID = re.compile("[a-z0-9_]+")
_SHOWN = 3  # mistakes told at once; a list of 177,000 names may hold thousands


class Vocabulary:
    """A checked list of entities; the number of an entity in it is its *position*.

    Args:
        entities: at least one.
        name: what messages and result files call this vocabulary.

    Attributes:
        entities: all of them, in order.
        name: as given.
        position: key (id, type) → position.
        contradictions: position → positions that cannot stand in one report with it; symmetric, and without the
            entities that contradict nothing.  A thing and the same thing denied always contradict each other, and so
            do names that differ by a contrary word ("increased density", "decreased density"); an id listed in
            ``contradicts`` means the thing itself, never its denial.

    Raises:
        UserError: no entity, a key twice, an id in two types other than a type and its opposite (of which one has to
            deny), a name that belongs to two ids (:func:`fold` tells which spellings are the same), an ill-formed id,
            an empty name, ``contradicts`` of an unknown id or of itself.
    """

    def __init__(self, entities: Iterable[Entity], name: str) -> None:
        self.entities = tuple(entities)
        self.name = name
        if not self.entities:
            raise UserError(f"词表（vocabulary）{name} 是空的，至少要有一个实体")
        self.position: dict[Key, int] = {}
        self._positions: dict[str, list[int]] = defaultdict(list)  # of an id: one, or two where it is also denied
        self._ids: dict[str, str] = {}  # folded name → id
        mistakes = [*self._enter(), *self._misplaced(), *self._bad_contradictions()]
        if mistakes:
            more = f"；等共 {len(mistakes)} 处" if len(mistakes) > _SHOWN else ""
            raise UserError(f"词表（vocabulary）{name}：{'；'.join(mistakes[:_SHOWN])}{more}")
        self.contradictions = self._contradictions()
        self._of_type = {type_: np.array([position for position, entity in enumerate(self.entities)
                                          if entity.type == type_], np.int32) for type_ in TYPES}

    def _enter(self) -> Iterator[str]:
        """Fill the look-up tables; yields what is wrong with single entities and names."""
        for position, entity in enumerate(self.entities):
            if not _ID.fullmatch(entity.id):
                yield f"id {entity.id!r} 只能由小写字母、数字和下划线组成"
            if entity.type not in TYPES:
                yield f"{entity.id} 的类型（type）{entity.type!r} 应为 {'、'.join(TYPES)} 之一"
            if entity.denies and not entity.type.startswith("non-"):
                yield f"{entity.id}：denies 只能用于 non-abnormality 和 non-disease，现在是 {entity.type}"
            if self.position.setdefault(entity.key, position) != position:
                yield f"{entity.id}（{entity.type}）重复出现，请只留一个"
                continue
            self._positions[entity.id].append(position)
            for wording in entity.names:
                folded = fold(wording)
                owner = self._ids.setdefault(folded, entity.id)
                if not folded:
                    yield f"{entity.id}（{entity.type}）有空的名称"
                elif owner != entity.id:
                    yield f"名称 {wording!r} 同时属于 {owner} 和 {entity.id}，请只留在一处"

    def _misplaced(self) -> Iterator[str]:
        for id_, positions in self._positions.items():
            first, *others = (self.entities[position] for position in positions)
            for other in others:
                if OPPOSITE.get(first.type) != other.type:
                    yield f"{first.en!r}（id {id_}）同时属于 {first.type} 和 {other.type} 两个类型，请只留在一个"
                elif first.denies == other.denies:
                    yield f"{id_} 同时属于 {first.type} 和 {other.type}，其中一个应是对另一个的否定（denies）"

    def _bad_contradictions(self) -> Iterator[str]:
        unknown = 0
        for entity in self.entities:
            for other in entity.contradicts:
                if other not in self._positions:
                    unknown += 1
                    # Comparing with every id takes a second among 177,000 of them.
                    near = did_you_mean(other, self._positions) if unknown <= _SHOWN else ""
                    yield f"{entity.id} 的 contradicts 中没有叫 {other!r} 的 id{near}"
                elif other == entity.id and not entity.denies:
                    yield f"{entity.id} 的 contradicts 中有它自己"

    def _contradictions(self) -> dict[int, frozenset[int]]:
        found: dict[int, set[int]] = defaultdict(set)
        pairs = [pair for positions in self._positions.values() for pair in combinations(positions, 2)]
        for position, entity in enumerate(self.entities):
            pairs += [(position, other) for id_ in entity.contradicts for other in self._positions[id_]
                      if not self.entities[other].denies]
            pairs += [(position, other) for other in self._contraries(entity) if other != position]
        for one, other in pairs:
            found[one].add(other)
            found[other].add(one)
        return {position: frozenset(others) for position, others in sorted(found.items())}

    def _contraries(self, entity: Entity) -> Iterator[int]:
        """Positions of what has the contrary name; what is denied has none ("no increased density" goes with both)."""
        if entity.denies:
            return
        for name in contraries(fold(entity.en)):
            for other in self._positions.get(self._ids.get(name, ""), ()):
                if not self.entities[other].denies:
                    yield other

    def __len__(self) -> int:
        return len(self.entities)

    def __iter__(self) -> Iterator[Entity]:
        return iter(self.entities)

    def __getitem__(self, key: Key) -> Entity:
        """The entity with this (id, type); raises KeyError where there is none."""
        return self.entities[self.position[key]]

    def of_type(self, type_: str) -> np.ndarray:
        """Positions of the entities of a type: int32 [n], ascending, n may be 0; raises UserError for another word."""
        if type_ not in self._of_type:
            raise UserError(f"没有叫 {type_!r} 的类型（type）{did_you_mean(type_, TYPES)}（可用：{'、'.join(TYPES)}）")
        return self._of_type[type_]

    def find_id(self, text: str) -> str | None:
        """The id that has ``text`` among its names, whatever the case and number (:func:`fold`); None without."""
        return self._ids.get(fold(text))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything the entities say, in order: the same for the same vocabulary anywhere."""
        values = attrgetter(*(field.name for field in fields(Entity)))
        text = json.dumps(list(map(values, self.entities)), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_vocabulary(file: str | Path | None = None) -> Vocabulary:
    """Read a vocabulary.

    * None: the shipped one.
    * A ``.yaml`` file, or a folder of them: a list of entities, one a line, ``- {id: effusion, en: pleural effusion,
      zh: 胸腔积液, also: [pleural fluid], contradicts: [...], drawer: effusion}``, in a file named after their type (or
      with ``type`` in each entry).  Without ``id`` it is made from the name.  ``- {denies: effusion}`` in
      ``non-disease.yaml`` is the thing of ``disease.yaml`` as reports deny it, with its names.
    * A ``.csv`` file with the columns ``name`` (or ``en``) and ``type``, and where wanted ``id``, ``zh``, ``also`` and
      ``contradicts`` (several joined by ``|``).  A name under a type and under its opposite is one thing, present and
      denied; rows that differ only in case, number or hyphens are one entity.

    Raises:
        UserError: see :class:`Vocabulary`; or no such file, not UTF-8, not YAML or CSV, unknown key, column or type, a
            row without name, ``denies`` of an id that is nowhere; with file and line.
    """
    if file is None:
        return Vocabulary(read_entities(Path(__file__).parent), "shipped")
    path = Path(file)
    return Vocabulary(read_entities(path), path.name or str(path))
