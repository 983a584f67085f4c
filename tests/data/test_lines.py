"""Lines of files that may be anybody's."""

import pytest

from paddle_cxr.data import lines
from paddle_cxr.data.lines import json_lines, read_lines
from paddle_cxr.errors import UserError


def test_objects_come_with_their_place_and_their_bytes(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n \n{"a": "\xe8\x83\xb8"}')
    assert list(json_lines(file, "行")) == [(f"{file}:1", b'\xef\xbb\xbf{"a": 1}\r\n', {"a": 1}),
                                           (f"{file}:4", b'{"a": "\xe8\x83\xb8"}', {"a": "胸"})]
    assert [text for _, text in read_lines(file, "行")] == ['{"a": 1}\r\n', "\n", " \n", '{"a": "胸"}']


@pytest.mark.parametrize(("content", "told"), [
    (b'{"a": 1}\n{"a": ', ":2：不是有效的 JSON，这一行可能没有写完"), (b"{]\n", ":1：不是有效的 JSON；"),
    (b"[1]\n", ":1：应是一个 JSON 对象（object），即一份报告"), (b"[" * 9000 + b"\n", ":1：不是有效的 JSON"),
    (b'{"a": "\xff"}\n', ":1：第 8 个字节起不是 UTF-8"), (b'{}\n{"a": "' + b"x" * 20_000, ":2：这一行超过")])
def test_broken_lines_are_named(tmp_path, monkeypatch, content, told):
    monkeypatch.setattr(lines, "MAX_LINE", 10_000)
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(json_lines(file, "份报告"))
    assert str(error.value).startswith(f"{file}{told}") and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="^无法读取 "):
        list(read_lines(tmp_path, "行"))
