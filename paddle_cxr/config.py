"""YAML → one checked recipe.

Reading a recipe is three steps, in this order: the file and its ``_base_`` files are merged (:func:`read_recipe`),
``-o`` overrides are laid on top (:func:`apply_overrides`), and the sections are checked against
:mod:`paddle_cxr.schema`.  No value is ever evaluated as code.

Merging: a child's mapping is laid over its base's mapping key by key; lists and scalars replace; a component that
changes its ``name`` drops the arguments of the old one, as they belong to something else.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from paddle_cxr.errors import UserError, did_you_mean

BASE_KEY = "_base_"
MAX_NODES = 20_000
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_UNREADABLE = (ValueError, KeyError, AttributeError, TypeError)  # what PyYAML lets out on values such as 2026-13-45
Origins = dict[str, str]  # dotted YAML path → "file:line" or "-o …": where a value was written


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads ``1e-3`` as a number, as YAML 1.2 and every user expect."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def read_recipe(file: str | Path, _chain: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Origins]:
    """Read a recipe with everything it inherits.

    Returns:
        The merged mapping (without ``_base_``) and where each value was written.

    Raises:
        UserError: missing file, YAML syntax error, repeated key, not a mapping, circular or bad ``_base_``.
    """
    path = Path(file)
    resolved = path.resolve()
    if resolved in _chain:
        ring = " → ".join(str(item.name) for item in (*_chain, resolved))
        raise UserError(f"{path}：_base_ 循环继承（{ring}），请去掉其中一个 _base_")
    own, origins = _read_yaml(path)
    bases = own.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
        raise UserError(f"{path}：{BASE_KEY} 应为文件名或文件名列表，现在是 {bases!r}")
    merged: dict[str, Any] = {}
    merged_origins: Origins = {}
    for base in bases:
        base_path = path.parent / base
        if not os.path.isfile(base_path):
            raise UserError(f"{origins.get(BASE_KEY, path)}：{BASE_KEY} 指向的文件不存在：{base_path}")
        inherited, inherited_origins = read_recipe(base_path, (*_chain, resolved))
        merged = merge(merged, inherited)
        merged_origins |= inherited_origins
    return merge(merged, own), merged_origins | origins


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``top`` over ``base`` (neither is changed); see the module's text for the rules."""
    if "name" in top and "name" in base and top["name"] != base["name"]:
        return copy.deepcopy(dict(top))
    result = copy.deepcopy(dict(base))
    for key, value in top.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = merge(below, value) if both else copy.deepcopy(value)
    return result


def apply_overrides(recipe: dict[str, Any], overrides: Sequence[str], origins: Origins | None = None) -> None:
    """Apply ``a.b.0.c=value`` overrides in place; values are parsed as YAML.

    A last key that does not exist yet is added (the schema decides whether it may be there).

    Raises:
        UserError: no ``=``, a path through something that is not there, an index outside its list, a bad value.
    """
    for override in overrides:
        dotted, equals, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise UserError(f"-o {override}：写法应为 a.b.c=值，例如 -o Global.epochs=2")
        try:
            value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, RecursionError, *_UNREADABLE):
            raise UserError(f"-o {override}：值 {text!r} 不是合法的 YAML；若是文字请加引号") from None
        _set(recipe, keys, value, override)
        if origins is not None:
            _forget(origins, ".".join(keys))
            for depth in range(1, len(keys) + 1):  # parents that the override itself opened
                origins.setdefault(".".join(keys[:depth]), f"-o {override}")


def _forget(origins: Origins, path: str) -> None:
    """A value laid over ``path`` replaces what was written there and below."""
    for known in [known for known in origins if known == path or known.startswith(path + ".")]:
        del origins[known]


def _set(recipe: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    node: Any = recipe
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        here = ".".join(keys[:depth]) or "配方顶层"
        if isinstance(node, list):
            if not (key.isdigit() and int(key) < len(node)):
                raise UserError(f"-o {override}：{here} 是 {len(node)} 项的列表，应写 0–{len(node) - 1} 的序号，"
                                f"不能是 {key!r}")
            if last:
                node[int(key)] = value
            node = node[int(key)]
        elif isinstance(node, dict):
            if last:
                node[key] = value
            # A section that the recipe leaves empty (``fallback:``) may be opened by an override.
            elif node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            raise UserError(f"-o {override}：{here} 的值是 {node!r}，下面没有 {key!r} 可改")


@contextmanager
def explained(origins: Origins) -> Iterator[None]:
    """Add ``（file:line）`` to a :class:`UserError` whose text begins with a YAML path."""
    try:
        yield
    except UserError as error:
        path, colon, rest = str(error).partition("：")
        where = _nearest_origin(path, origins)
        if not colon or where is None:
            raise
        raise UserError(f"{path}：{rest}（见 {where}）") from error


def _nearest_origin(path: str, origins: Origins) -> str | None:
    keys = path.split(".")
    for length in range(len(keys), 0, -1):
        where = origins.get(".".join(keys[:length]))
        if where:
            return where
    return None


def _read_yaml(path: Path) -> tuple[dict[str, Any], Origins]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        nearby = [str(file) for file in sorted(path.parent.glob("*.yaml"))]
        raise UserError(f"找不到配方文件 {path}{did_you_mean(str(path), nearby)}；可用的配方在 configs/ 下") from None
    except IsADirectoryError:
        raise UserError(f"{path} 是文件夹；-c 要一个 .yaml 文件，例如 configs/resnet50.yaml") from None
    except UnicodeDecodeError:
        raise UserError(f"配方文件 {path} 不是 UTF-8 编码；请在编辑器中另存为 UTF-8") from None
    except OSError as error:
        raise UserError(f"无法读取配方文件 {path}：{error.strerror or error}") from None
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            origins: Origins = {}
            value = _construct(loader, node, "", path, origins) if node is not None else {}
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}：YAML 语法错误（syntax error）：{_problem(error)}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}：YAML 语法错误（syntax error）：{str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{path}：YAML 嵌套过深或锚点（anchor）自引用") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}：配方的最外层应是 键: 值，现在是 {type(value).__name__}")
    return value, origins


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What is usually behind a parser's complaint, and the complaint itself."""
    text = str(error.problem)
    hints = {"'\\t'": "不能用制表符（Tab）缩进，请用空格", "mapping values": "多半是缩进不齐，或文字里的冒号没有加引号",
             "end of stream": "引号或括号没有闭合", "',' or": "括号没有闭合，或少了逗号",
             "could not find expected ':'": "这一行少了冒号，或上一行的引号没有闭合",
             "expected <block end>": "缩进与上面不齐"}
    hint = next((hint for key, hint in hints.items() if key in text), None)
    since, here = error.context_mark, error.problem_mark
    begun = f"，从第 {since.line + 1} 行开始" if since and here and since.line != here.line else ""
    return f"{hint}{begun}（{text}）" if hint else f"{text}{begun}"


def _construct(loader: _Loader, node: yaml.Node, dotted: str, path: Path, origins: Origins) -> Any:
    """Build plain Python values from YAML nodes, noting the line of each and refusing repeated keys."""
    if dotted:
        origins[dotted] = f"{path}:{node.start_mark.line + 1}"
    if len(origins) > MAX_NODES:  # anchors that multiply each other ("billion laughs")
        raise UserError(f"{path}：配方展开后超过 {MAX_NODES} 项，请检查锚点（anchor）")
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        raise UserError(f"{path}:{node.start_mark.line + 1}：YAML 语法错误（syntax error）：不支持的标签 {node.tag}")
    if isinstance(node, yaml.MappingNode):
        written = [key.value for key, _ in node.value]
        repeated = next((key for key, _ in node.value if written.count(key.value) > 1), None)
        if repeated is not None:
            raise UserError(f"{path}:{repeated.start_mark.line + 1}：键 {repeated.value!r} 重复出现，请只留一个")
        loader.flatten_mapping(node)  # resolves the YAML merge key <<; merged keys come first, so own keys win
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            result[key] = _construct(loader, value_node, f"{dotted}.{key}" if dotted else key, path, origins)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, f"{dotted}.{i}", path, origins) for i, item in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except _UNREADABLE:
        where, kind = f"{path}:{node.start_mark.line + 1}", node.tag.rsplit(":", 1)[-1]
        raise UserError(f"{where}：值 {node.value!r} 不能读成 {kind}；若是文字请加引号") from None
