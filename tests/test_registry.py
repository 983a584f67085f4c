"""Components by name, with checked arguments."""

from typing import Literal

import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, check_type, register


@register("test-kind")
class Widget:
    def __init__(self, size: int, ratio: float = 0.5, mode: Literal["a", "b"] = "a", names: list[str] | None = None,
                 pair: tuple[float, float] = (0, 1), classes: tuple = ()) -> None:
        self.given = (size, ratio, mode, names, pair, classes)


def test_builds_with_arguments_and_context():
    widget = build("test-kind", {"name": "Widget", "size": 3, "ratio": 1, "pair": [1, 2]}, "A", classes=("x",), other=1)
    assert widget.given == (3, 1.0, "a", None, (1.0, 2.0), ("x",))


@pytest.mark.parametrize("spec, said", [
    ({"name": "Wigdet", "size": 1}, "A.name：没有叫 'Wigdet' 的组件，是不是 Widget？"),
    ({"name": "Widget", "sise": 1}, "A.sise：Widget 没有参数 'sise'，是不是 size？（可用参数：size、ratio、"),
    ({"name": "Widget"}, "A.size：Widget 缺少必填参数 size"),
    ({"name": "Widget", "size": "3"}, "A.size：应为 int，现在是 '3'（str）"),
    ({"name": "Widget", "size": True}, "A.size：应为 int"),
    ({"name": "Widget", "size": 1, "mode": "c"}, "A.mode"),
    ({"name": "Widget", "size": 1, "names": ["x", 1]}, "A.names：应为 str 的列表 或 null"),
    ({"name": "Widget", "size": 1, "classes": ["x"]}, "A.classes：Widget 没有参数 'classes'"),
    ({"size": 1}, "A：应为 {name: 组件名"),
    ("Widget", "A：应为 {name: 组件名"),
])
def test_mistakes_name_the_path_and_what_is_accepted(spec, said):
    with pytest.raises(UserError) as error:
        build("test-kind", spec, "A", classes=())
    assert said in str(error.value) and "\n" not in str(error.value)


def test_integers_pass_for_floats_and_nothing_else_is_converted():
    assert check_type(3, float, "p") == 3.0
    with pytest.raises(UserError):
        check_type("3", float, "p")
    with pytest.raises(UserError):
        check_type(3.0, int, "p")
