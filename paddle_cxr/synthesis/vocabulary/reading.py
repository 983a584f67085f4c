"""Vocabulary files → entities.  Files may be anybody's: nothing in them is trusted, every mistake names its line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.synthesis.entities import OPPOSITE, TYPES, Entity, Key
from paddle_cxr.synthesis.vocabulary.names import identifier

_TEXTS = ("id", "type", "en", "zh", "drawer", "denies")
_LISTS = ("also", "contradicts")
_COLUMNS = {"name": "en", "en": "en", "type": "type", "id": "id", "zh": "zh", "also": "also",
            "contradicts": "contradicts", "count": "count"}
_UNUSED = ("count",)  # written by tools/analyze.py entities for people to read
_DEEPEST = 10  # a list of entities with lists in them is 3 deep; more is told with its line as long as it is harmless
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it, is 8 times as fast

Row = dict[str, str | list[str]]


def read_entities(file: Path) -> list[Entity]:
    """The entities of a .yaml file, of a folder of them, or of a .csv file.

    Raises:
        UserError: no such file, another kind of file, not UTF-8, not YAML or CSV, unknown key, column or type, a row
            without name, ``denies`` of an id that is nowhere.
    """
    if os.path.isdir(file):  # unlike Path.is_dir it takes any text for a name
        parts = sorted([*file.glob("*.yaml"), *file.glob("*.yml")], key=lambda part: (_rank(part.stem), part.name))
        if not parts:
            raise UserError(f"词表（vocabulary）文件夹 {file} 里没有 .yaml 文件")
        return _entities(row for part in parts for row in _yaml_rows(part))
    if file.suffix.lower() in (".yaml", ".yml"):
        return _entities(_yaml_rows(file))
    if file.suffix.lower() == ".csv":
        return _entities(_csv_rows(file))
    raise UserError(f"词表（vocabulary）应为 .yaml、.csv 文件或 .yaml 的文件夹，现在是 {file}")


def _rank(type_: str) -> int:
    """Files in the order of the types, whatever their names sort like."""
    return TYPES.index(type_) if type_ in TYPES else len(TYPES)


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        nearby = [str(other) for other in sorted(file.parent.glob("*"))]
        raise UserError(f"找不到词表（vocabulary）{file}{did_you_mean(str(file), nearby)}") from None
    except UnicodeDecodeError:
        raise UserError(f"词表 {file} 不是 UTF-8 编码；请在编辑器或 Excel 中另存为 UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: no name of a file at all
        raise UserError(f"无法读取词表 {file}：{getattr(error, 'strerror', None) or error}") from None


def _tidy(text: str) -> str:
    """Names go into sentences: single blanks, no line breaks."""
    return " ".join(text.split())


def _csv_rows(file: Path) -> Iterator[tuple[str, Row]]:
    reader = csv.reader(io.StringIO(_read_text(file), newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        _check_header(f"{file}:1", header)
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise UserError(f"{where}：有 {len(cells)} 列，而表头有 {len(header)} 列；名称里有逗号时请加英文双引号")
            row: Row = {}
            for column, cell in zip(header, cells, strict=True):
                key = _COLUMNS[column]
                if key in _UNUSED:
                    continue
                row[key] = [_tidy(part) for part in cell.split("|") if part.strip()] if key in _LISTS else _tidy(cell)
            yield where, row
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}：不是有效的 CSV（{error}）") from None


def _check_header(where: str, header: list[str]) -> None:
    for column in header:
        if column not in _COLUMNS:
            raise UserError(f"{where}：没有叫 {column!r} 的列{did_you_mean(column, _COLUMNS)}"
                            f"（可用：{'、'.join(_COLUMNS)}；必须有 name 和 type）")
    keys = [_COLUMNS[column] for column in header]
    if len(set(keys)) < len(keys):
        raise UserError(f"{where}：表头有重复的列（{'、'.join(header)}；name 与 en 是同一列）")
    for key, column in (("en", "name"), ("type", "type")):
        if key not in keys:
            raise UserError(f"{where}：表头缺少 {column} 列（现在是：{'、'.join(header) or '空'}）")


def _yaml_rows(file: Path) -> Iterator[tuple[str, Row]]:
    text = _read_text(file)
    # Nodes, not values: they know their lines, a name such as "no" stays text, and nothing is ever constructed.
    try:
        _refuse_depth(text, file)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{file}{line}：YAML 语法错误（syntax error）：{error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}：YAML 语法错误（syntax error）：{str(error).splitlines()[0]}") from None
    if root is None:
        return
    if not isinstance(root, yaml.SequenceNode):
        raise UserError(f"{file}：应是一个列表，每行一个实体，例如 - {{id: nodule, en: lung nodule, zh: 肺结节}}")
    for node in root.value:
        where = f"{file}:{node.start_mark.line + 1}"
        row = _yaml_row(node, where)
        if "type" not in row:
            if file.stem not in TYPES:
                raise UserError(f"{where}：缺少 type；文件名不是类型（{'、'.join(TYPES)}）时，每个实体要写明 type")
            row["type"] = file.stem
        yield where, row


def _refuse_depth(text: str, file: Path) -> None:
    """libyaml's composer recurses in C: a file of a hundred thousand brackets would end Python itself."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UserError(f"{file}:{event.start_mark.line + 1}：YAML 嵌套过深；词表只有三层：列表、实体、同义词列表")


def _yaml_row(node: yaml.Node, where: str) -> Row:
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{where}：应是 {{id: …, en: …, zh: …}} 这样的一项")
    row: Row = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if key not in (*_TEXTS, *_LISTS):
            raise UserError(f"{where}：没有叫 {key!r} 的键{did_you_mean(key, (*_TEXTS, *_LISTS))}"
                            f"（可用：{'、'.join((*_TEXTS, *_LISTS))}）")
        if key in row:
            raise UserError(f"{where}：键 {key} 重复出现，请只留一个")
        if key in _LISTS:
            if not (isinstance(value, yaml.SequenceNode) and all(isinstance(v, yaml.ScalarNode) for v in value.value)):
                raise UserError(f"{where}：{key} 应为列表，例如 {key}: [一, 二]")
            row[key] = [_tidy(part.value) for part in value.value]
        elif isinstance(value, yaml.ScalarNode):
            row[key] = _tidy(value.value)
        else:
            raise UserError(f"{where}：{key} 应为文字")
    return row


def _entities(rows: Iterable[tuple[str, Row]]) -> list[Entity]:
    """Entities in the order of the rows, the denials last."""
    entities: list[Entity] = []
    named_only: dict[Key, int] = {}  # entities whose id was made from the name: position by key
    denials: list[tuple[str, Row]] = []
    for where, row in rows:
        row["type"] = _type(str(row["type"]), where)
        if "denies" in row:
            denials.append((where, row))
            continue
        if not row.get("en"):
            raise UserError(f"{where}：缺少英文名（{'en' if 'id' in row else 'name 或 en'}）")
        entity = _entity(row)
        if not row.get("id"):
            if entity.key in named_only:
                _add_spelling(entities, named_only[entity.key], entity, where)
                continue
            named_only[entity.key] = len(entities)
        entities.append(entity)
    things = {entity.key: entity for entity in entities}
    return [_opposed(entity, things) for entity in entities] + [_denial(*denial, things) for denial in denials]


def _type(text: str, where: str) -> str:
    type_ = text.lower().replace("_", "-")
    if type_ not in TYPES:
        raise UserError(f"{where}：没有叫 {text!r} 的类型（type）{did_you_mean(text, TYPES)}"
                        f"（可用：{'、'.join(TYPES)}）")
    return type_


def _entity(row: Row) -> Entity:
    en = str(row["en"])
    return Entity(id=str(row.get("id") or identifier(en)), type=str(row["type"]), en=en, zh=str(row.get("zh", "")),
                  also=tuple(row.get("also", ())), contradicts=tuple(row.get("contradicts", ())),
                  drawer=str(row.get("drawer") or "") or None)


def _add_spelling(entities: list[Entity], position: int, other: Entity, where: str) -> None:
    """A mined list has "opacity" and "opacities" in two rows: one thing, the later spelling becomes a synonym."""
    first = entities[position]
    if other.en.casefold() in (name.casefold() for name in first.names):
        raise UserError(f"{where}：{other.en!r}（{other.type}）重复出现，请删去一行")
    entities[position] = replace(first, also=(*first.also, *other.names), zh=first.zh or other.zh,
                                 contradicts=(*first.contradicts, *other.contradicts))


def _opposed(entity: Entity, things: dict[Key, Entity]) -> Entity:
    """A mined list has "effusion" under a type and under its opposite: the second stands for what reports deny."""
    thing = things.get((entity.id, OPPOSITE.get(entity.type, "")))
    if thing is None or not entity.type.startswith("non-"):
        return entity
    return replace(entity, denies=True, zh=entity.zh or _deny_zh(thing.zh))


def _denial(where: str, row: Row, things: dict[Key, Entity]) -> Entity:
    """``- {denies: effusion}`` → the entry of the opposite type with the thing's names."""
    extra = sorted(set(row) - {"denies", "type", "contradicts"})
    if extra:
        raise UserError(f"{where}：denies 的名称取自它所否定的实体，请去掉 {'、'.join(extra)}")
    type_, id_ = str(row["type"]), str(row["denies"])
    opposite = OPPOSITE.get(type_, "")
    thing = things.get((id_, opposite))
    if thing is None or not type_.startswith("non-"):
        known = [id_ for id_, type_ in things if type_ == opposite]
        raise UserError(f"{where}：denies 应写在 non-abnormality 或 non-disease 中，指向相反类型的 id；"
                        f"没有 {id_!r}{did_you_mean(id_, known)}")
    return Entity(id=id_, type=type_, en=thing.en, zh=_deny_zh(thing.zh), also=thing.also, denies=True,
                  contradicts=tuple(row.get("contradicts", ())))


def _deny_zh(zh: str) -> str:
    return f"无{zh}" if zh else ""
