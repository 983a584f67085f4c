"""Optional packages: imported without their warnings, and one line where they are missing."""

import warnings

import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.quiet import importing


def test_a_package_that_is_missing_is_one_line_with_the_way_out():
    with pytest.raises(UserError, match="甲需要乙，但导入失败（No module named 'no_such_package'）；请安装") as error:
        with importing("甲需要乙", "请安装"):
            import no_such_package  # noqa: F401
    assert error.value.__cause__ is None


def test_a_package_that_breaks_while_it_is_imported_is_missing_too():
    with pytest.raises(UserError, match="cannot import name"), importing("甲需要乙", "请安装"):
        from paddle_cxr.errors import no_such_name  # noqa: F401


def test_warnings_are_silent_within_and_heard_again_after():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with importing("甲需要乙", "请安装"):
            warnings.warn("advice", DeprecationWarning, stacklevel=1)
        warnings.warn("after", UserWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["after"]
