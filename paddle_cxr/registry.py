"""Name → component, with errors a student can act on.

A YAML component is ``{name: X, ...arguments}``.  ``X`` is looked up among the components of one *kind* (``arch``,
``transform``, ``source`` …), its arguments are checked against the signature of the registered class or function,
and every mistake is reported with the YAML path, the nearest known name and what is accepted.

    @register("transform")
    class RandomRotation:
        def __init__(self, degrees: float = 30.0, prob: float = 0.5) -> None: ...

    build("transform", {"name": "RandomRotation", "degrees": 10}, "DataLoader.Train.transform_ops.0")

Arguments that the recipe never writes but the program supplies (classes, image shape, seed …) are passed as
*context*: they fill parameters of the same name, and a recipe may not set them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pydantic

from paddle_cxr.errors import UserError, did_you_mean

# Keys that a recipe writes beside a component's own arguments, for another part of the program.
BESIDE = {"arch": ("pretrained",), "optimizer": ("lr",)}

T = TypeVar("T", bound=Callable[..., Any])

_COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {}

# Where the components of a kind are defined: imported on first use, so that `--help` stays fast.
_MODULES = {
    "arch": ("paddle_cxr.models",),
    "loss": ("paddle_cxr.tasks.losses",),
    "vision_language_loss": ("paddle_cxr.tasks.pretraining.losses",),
    "segmentation_loss": ("paddle_cxr.tasks.segmentation.losses",),
    "optimizer": ("paddle_cxr.engine.optimizer",),
    "lr": ("paddle_cxr.engine.schedules",),
    "source": ("paddle_cxr.data.sources",),
    "split": ("paddle_cxr.data.splits",),
    "transform": ("paddle_cxr.data.transforms",),
    "batch_transform": ("paddle_cxr.data.mixing",),
    "metric": ("paddle_cxr.evaluation",),
    "sampler": ("paddle_cxr.synthesis.sampling",),
    "ner": ("paddle_cxr.synthesis.ner.dictionary", "paddle_cxr.synthesis.ner.rate"),
    "judge": ("paddle_cxr.synthesis.quality.measured", "paddle_cxr.synthesis.quality.chat",
              "paddle_cxr.synthesis.quality.local"),
    "encoder": ("paddle_cxr.synthesis.encoders",),
    "generator": ("paddle_cxr.synthesis.generators.phantom", "paddle_cxr.synthesis.generators.folder",
                  "paddle_cxr.synthesis.generators.endpoint", "paddle_cxr.synthesis.generators.diffusers"),
    "pairs": ("paddle_cxr.data.pairs",),
    "findings": ("paddle_cxr.data.sources",),
    "writer": ("paddle_cxr.synthesis.writers.grammar", "paddle_cxr.synthesis.writers.chat",
               "paddle_cxr.synthesis.writers.local"),
}


def register(kind: str, name: str | None = None) -> Callable[[T], T]:
    """Class or function decorator: make it available as ``name`` (its own name by default) among ``kind``."""

    def add(component: T) -> T:
        _COMPONENTS.setdefault(kind, {})[name or component.__name__] = component
        return component

    return add


def components(kind: str) -> dict[str, Callable[..., Any]]:
    """All components of ``kind``, by name."""
    for module in _MODULES.get(kind, ()):
        importlib.import_module(module)
    return _COMPONENTS.setdefault(kind, {})


def find(kind: str, name: Any, path: str) -> Callable[..., Any]:
    """The component ``name`` of ``kind``; raises :class:`UserError` with the YAML ``path`` and the accepted names."""
    known = components(kind)
    if isinstance(name, str) and name in known:
        return known[name]
    accepted = "、".join(sorted(known))
    raise UserError(f"{path}.name：没有叫 {name!r} 的组件{did_you_mean(str(name), known)}（可用：{accepted}）")


def build(kind: str, spec: Any, path: str, **context: Any) -> Any:
    """Build the component that ``spec`` (``{name: X, ...}``) describes.

    Args:
        kind: the kind of component expected at this place of the recipe.
        spec: the YAML value.
        path: its YAML path, for errors.
        context: values for parameters that the program supplies; parameters the component lacks are left out.

    Raises:
        UserError: not a component, unknown name, unknown, missing or ill-typed argument.
    """
    component, arguments = check(kind, spec, path, context)
    return component(**arguments)


def check(kind: str, spec: Any, path: str, context: Mapping[str, Any] | None = None
          ) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Like :func:`build` without the call: return the component and its checked arguments."""
    context = context or {}
    if not isinstance(spec, Mapping) or "name" not in spec:
        known = "、".join(sorted(components(kind)))
        raise UserError(f"{path}：应为 {{name: 组件名, 参数…}}，现在是 {spec!r}（可用组件：{known}）")
    component = find(kind, spec["name"], path)
    beside = BESIDE.get(kind, ())
    given = {key: value for key, value in spec.items() if key != "name" and key not in beside}
    return component, _check_arguments(component, given, path, context, beside)


def accepted_arguments(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of ``component`` by name (``self`` and ``*args``/``**kwargs`` excluded)."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(component).parameters
    return {name: value for name, value in parameters.items() if value.kind not in variable}


def _check_arguments(component: Callable[..., Any], given: Mapping[str, Any], path: str,
                     context: Mapping[str, Any], beside: Sequence[str]) -> dict[str, Any]:
    parameters = accepted_arguments(component)
    writable = [name for name in parameters if name not in context]
    for key in given:
        if key not in writable:
            accepted = [*writable, *beside]
            raise UserError(f"{path}.{key}：{component.__name__} 没有参数 {key!r}{did_you_mean(key, accepted)}"
                            f"（可用参数：{'、'.join(accepted) or '无'}）")
    target = component.__init__ if inspect.isclass(component) else component
    hints = get_type_hints(target)
    result = {name: value for name, value in context.items() if name in parameters}
    for name in writable:
        if name in given:
            result[name] = check_type(given[name], hints.get(name, Any), f"{path}.{name}")
        elif parameters[name].default is inspect.Parameter.empty:
            raise UserError(f"{path}.{name}：{component.__name__} 缺少必填参数 {name}")
    return result


def check_type(value: Any, hint: Any, path: str) -> Any:
    """Return ``value`` as ``hint`` demands, or raise :class:`UserError` naming path, expected type and value.

    Integers pass for floats and lists for tuples, as YAML has only one spelling for each; nothing else is converted.
    """
    try:
        return pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True}).validate_python(
            _tuples(value, hint), strict=True)
    except pydantic.ValidationError:
        near = did_you_mean(str(value), _words(hint))
        raise UserError(f"{path}：应为 {type_name(hint)}{near}，现在是 {value!r}（{type(value).__name__}）") from None


def _tuples(value: Any, hint: Any) -> Any:
    """Lists as tuples where ``hint`` mentions a tuple: YAML cannot write one."""
    return tuple(value) if isinstance(value, list) and "tuple" in str(hint) else value


def type_name(hint: Any) -> str:
    """A type for people, on one line: ``int``, ``float 的列表 或 balanced 或 null``, ``[int, int]``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " 或 ".join(type_name(one) for one in arguments)
    if origin is Literal:
        return "、".join(str(one) for one in arguments)
    if origin is list:
        return f"{type_name(arguments[0])} 的列表"
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(type_name(one) for one in arguments)}]"
    return {NoneType: "null", Any: "任意值"}.get(hint) or getattr(hint, "__name__", str(hint))


def _words(hint: Any) -> list[str]:
    """The words a type accepts."""
    if get_origin(hint) is Literal:
        return [one for one in get_args(hint) if isinstance(one, str)]
    return [word for one in get_args(hint) for word in _words(one)]
