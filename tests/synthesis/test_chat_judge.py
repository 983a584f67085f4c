"""The multimodal judge against a real server on this machine that misbehaves on demand."""

import base64
import io
import re
import shutil
import socket
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from synthesis.loopback import KEY, Server

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.quality.base import QUESTIONS
from paddle_cxr.synthesis.quality.chat import ChatJudge
from paddle_cxr.synthesis.quality.questions import JudgePrompts, read_yes_no

pytestmark = pytest.mark.usefixtures("endpoint_environment")
PROBE = 128  # the grey square that is sent at the start

# What the server does with the image whose grey level is 10 × its place here, and what comes of it.
MODES = ["yes", "no", "slow", "drops", "halves", "busy", "fails", "dead", "nonsense", "hedges", "second", "cut", "null",
         "filtered", "refuses", "picky", "tells"]


def picture(mode: str, shape: tuple[int, ...] = (40, 30)) -> np.ndarray:
    return np.full(shape, 10 * MODES.index(mode) + 1, np.uint8)


def sent_image(body: dict) -> np.ndarray:
    """The pixels in a request."""
    head, _, data = body["messages"][1]["content"][0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def question_of(body: dict, prompts: JudgePrompts) -> str:
    text = body["messages"][1]["content"][1]["text"]
    return next(one for one in QUESTIONS if text.startswith(prompts.messages(one, "", False)[1]["content"][1]["text"]))


def respond(handler, body: dict, nth: int) -> None:
    def chat(content, reason="stop"):
        handler.answer(200, {"choices": [{"message": {"content": content}, "finish_reason": reason}]})

    level = int(sent_image(body).flat[0])
    mode = "yes" if level == PROBE else MODES[level // 10]
    if mode in ("drops", "halves", "busy") and nth > 1 or mode == "fails" and nth > 2:
        mode = "yes"
    if mode == "slow":
        time.sleep(0.03)
    if mode == "picky":
        return chat("NO" if question_of(body, handler.server.prompts) in ("frontal", "sharp") else "Yes.")
    {"yes": lambda: chat("YES"), "slow": lambda: chat(" yes\n"), "no": lambda: chat("**No**"),
     "drops": handler.drop, "halves": handler.half,
     "busy": lambda: handler.answer(429, {}, Retry_After="0.01"), "fails": lambda: handler.answer(500, b"<html>"),
     "dead": lambda: handler.answer(503, b""), "nonsense": lambda: chat("42"),
     "hedges": lambda: chat("Yes, but the apices are cut off"), "null": lambda: chat(None),
     "second": lambda: chat("It looks fine to me." if nth == 1 else "yes"),
     "cut": lambda: chat("Yes", "length"), "filtered": lambda: chat("no", "content_filter"),
     "refuses": lambda: handler.answer(400, {"error": {"message": f"bad image {nth}\x1b[31m for {KEY}"}}),
     "tells": lambda: chat(f"{KEY} \x1b[31m yes")}[mode]()


@pytest.fixture
def server(root):
    prompts = JudgePrompts(root / "configs/synthesis/prompts/judge/en")
    running = Server(respond, lambda body: (int(sent_image(body).flat[0]), question_of(body, prompts)))
    running.prompts = prompts
    yield running
    running.stop()


@pytest.fixture
def judge(server, root):
    """Make a judge that asks the server."""

    def make(**arguments) -> ChatJudge:
        return ChatJudge(**{"url": server.root + "/v1", "model": "InternVL2", "key_variable": "TEST_API_KEY",
                            "prompts": str(root / "configs/synthesis/prompts/judge/en"), "retries": 2,
                            "timeout": 20.0} | arguments)

    return make


def test_every_question_is_accounted_for_in_order(server, judge):
    asker = judge(concurrency=8)
    names = [mode for _ in range(3) for mode in MODES]
    verdicts = asker.judge([picture(mode) for mode in names])
    assert len(verdicts) == len(names)
    good = {"yes", "slow", "drops", "halves", "busy", "fails", "second"}
    unknown = {"dead": "HTTP 503", "nonsense": "42", "hedges": "but", "cut": "length", "null": "null",
               "filtered": "content_filter", "refuses": "HTTP 400", "tells": r"\*\*\*"}
    firsts = dict(zip(names[:len(MODES)], verdicts, strict=False))
    for mode, verdict in firsts.items():
        assert tuple(verdict) == QUESTIONS
        for question, answer in verdict.items():
            if mode == "picky":
                assert answer.passed is (question not in ("frontal", "sharp"))
            elif mode in unknown:
                assert answer.passed is None and len(answer.reason) < 300
                assert KEY not in answer.reason and answer.reason.isprintable()
                assert re.search(unknown[mode], answer.reason), (mode, answer)
            else:
                assert answer.passed is (mode in good), (mode, answer)
            assert answer.value is None
            assert (answer.reason == "") == (answer.passed is True)
    # Three images of each, six questions: what stayed without an answer is counted, by kind.
    assert asker.errors == {"答非是否（neither yes nor no）": 3 * 6 * 6, "HTTP 503": 18, "HTTP 400": 18}
    assert asker.sent == len(server.asked)


def test_the_request_is_what_the_protocol_wants(server, judge):
    asker = judge(longest_side=64, max_tokens=5)
    big = np.zeros((50, 200, 3), np.uint8) + np.array([1, 90, 180], np.uint8)
    asker.judge([big])
    assert server.models and len(server.asked) == 1 + 6
    asked = []
    for path, body, key in server.asked[1:]:
        assert (path, key) == ("/v1/chat/completions", f"Bearer {KEY}")
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("InternVL2", 0, 5)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
        pixels = sent_image(body)
        assert pixels.shape == (16, 64, 3) and pixels[5, 5].tolist() == [1, 90, 180]
        asked.append(question_of(body, server.prompts))
    assert asked == list(QUESTIONS)
    small = np.arange(3 * 70, dtype=np.uint8).reshape(3, 70)
    judge(longest_side=70).judge([small])
    assert np.array_equal(sent_image(server.asked[-1][1]), small)  # neither enlarged nor changed


def test_an_unreadable_answer_is_asked_for_again_in_other_words(server, judge, root):
    retry = (root / "configs/synthesis/prompts/judge/en/retry.txt").read_text(encoding="utf-8").strip()
    verdict = judge().judge([picture("second")])[0]
    assert all(answer.passed for answer in verdict.values())
    words = [body["messages"][1]["content"][1]["text"] for _, body, _ in server.asked[1:]]
    assert len(words) == 12 and [retry in text for text in words] == [False, True] * 6
    asker = judge(attempts=3)
    before = len(server.asked)
    asker.judge([picture("hedges")])
    assert len(server.asked) - before == 18 and sum(asker.errors.values()) == 6


def test_several_images_are_in_flight_and_no_more_than_allowed(server, judge):
    judge(concurrency=3).judge([picture("slow")] * 9)
    assert 1 < server.most <= 3


def test_no_images_no_verdicts(judge):
    assert judge().judge([]) == []


def test_a_model_that_cannot_see_is_told_at_the_start(server, judge):
    server.respond = lambda handler, body, nth: handler.answer(
        400, {"error": {"message": "this is not a multimodal model"}})
    with pytest.raises(UserError, match="Judge.model.*not a multimodal model"):
        judge()


@pytest.mark.parametrize("status, told", [(401, "TEST_API_KEY"), (404, "Judge.model"), (402, "余额")])
def test_what_no_request_survives_stops_the_run(server, judge, status, told):
    asker = judge(concurrency=2)
    server.respond = lambda handler, body, nth: handler.answer(status, {"error": {"message": "no"}})
    with pytest.raises(UserError, match=told):
        asker.judge([picture("yes")] * 100)
    assert len(server.asked) < 30


def test_nobody_there_is_told_at_the_start_and_later(server, judge):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="Judge.url.*连不上"):
            judge(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    asker = judge(retries=1)
    server.stop()
    with pytest.raises(UserError, match="连不上"):
        asker.judge([picture("yes")] * 3)


@pytest.mark.parametrize("arguments, told", [
    ({"concurrency": 0}, "Judge.concurrency"), ({"attempts": 0}, "Judge.attempts"), ({"timeout": 0.0}, "Judge.timeout"),
    ({"longest_side": 8}, "Judge.longest_side"), ({"max_tokens": 0}, "Judge.max_tokens"),
    ({"prompts": "nowhere"}, r"system\.txt"), ({"key_variable": "ABSENT_API_KEY"}, "ABSENT_API_KEY"),
    ({"url": "localhost:8000"}, "http://")])
def test_wrong_arguments_are_one_line(judge, arguments, told):
    with pytest.raises(UserError, match=told):
        judge(**arguments)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_shipped_prompts(root, language):
    prompts = JudgePrompts(root / "configs/synthesis/prompts/judge" / language)
    texts = [prompts.messages(question, "u", False)[1]["content"][1]["text"] for question in QUESTIONS]
    assert len(set(texts)) == 6 and len(prompts.hash) == 64
    for word in ("YES", "NO") if language == "en" else ("“是”", "“否”"):
        assert all(word in text for text in texts)


def test_prompt_files_that_cannot_be_used(root, tmp_path):
    folder = shutil.copytree(root / "configs/synthesis/prompts/judge/zh", tmp_path / "prompts")
    first = JudgePrompts(folder).hash
    text = (folder / "sharp.txt").read_bytes()
    (folder / "sharp.txt").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert JudgePrompts(folder).hash == first
    for content, told in ((b"", "是空的"), ("是".encode("gbk"), "UTF-8")):
        (folder / "sharp.txt").write_bytes(content)
        with pytest.raises(UserError, match=rf"sharp\.txt.*{told}"):
            JudgePrompts(folder)
    (folder / "human.txt").unlink()
    with pytest.raises(UserError, match=r"human\.txt"):
        JudgePrompts(folder)


@pytest.mark.parametrize("answer, read", [
    ("YES", True), ("yes", True), (" Yes. ", True), ("'yes'", True), ("**YES**", True), ("ＹＥＳ", True),
    ("yes!", True), ("是", True), ("是。", True), ("是的", True), ("“是”", True),
    ("<think>No, wait: no</think>\n\nYes", True),
    ("NO", False), ("no.", False), ("否", False), ("不是。", False), ("「否」", False),
    ("Yes, but", None), ("Yes, it is a chest X-ray.", None), ("yes,", None), ("yes or no", None), ("YES NO", None),
    ("yes/no", None), ("not yes", None), ("是/否", None), ("是不是", None), ("不", None), ("y", None), ("1", None),
    ("true", None), ("", None), ("   ", None), (None, None), (1, None), (True, None), (["yes"], None),
    ("<think>yes", None), ("yesno", None), ("nope", None)])
def test_only_a_plain_yes_or_no_counts(answer, read):
    assert read_yes_no(answer) is read


@given(st.text())
def test_any_text_is_read_as_yes_no_or_neither(text):
    told = read_yes_no(text)
    letters = "".join(c for c in text if c.isalnum())
    if told is not None and "</think>" not in text:
        assert letters  # a verdict is never made of punctuation


@given(st.sampled_from(["yes", "no", "是", "否"]), st.text(min_size=1).filter(lambda text: any(map(str.isalnum, text))))
def test_a_word_and_more_words_are_no_answer(word, more):
    assert read_yes_no(f"{word} {more}") is None
