"""Images from a folder and from an endpoint that misbehaves on demand."""

import base64
import io
import os
import re
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from synthesis.loopback import KEY, Server

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.generators.base import ImageRequest
from paddle_cxr.synthesis.generators.endpoint import EndpointGenerator
from paddle_cxr.synthesis.generators.folder import FolderGenerator
from paddle_cxr.synthesis.generators.reading import NoImage, decode_grey

pytestmark = pytest.mark.usefixtures("endpoint_environment")
SIZE = 48


def film(seed: int, size: int = SIZE) -> np.ndarray:
    """What the honest server draws for a seed."""
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims (and unpacks to) a picture of any size."""
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9))
            + chunk(b"IEND", b""))


def request(prompt: str, seed: int = 0, identity: str = "r0") -> ImageRequest:
    return ImageRequest(identity, prompt, seed)


# ---------------------------------------------------------------- a folder

def write_images(folder, **files):
    for name, pixels in files.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_the_images_of_a_folder_by_pair(tmp_path):
    colour = np.stack([film(1), film(1), film(1) // 2 * 2], axis=-1)
    write_images(tmp_path, r1=film(1), r2=film(2, 60)[:, :50], r3=colour)
    generator = FolderGenerator(str(tmp_path))
    drawn = generator.draw([request("", identity=f"r{number}") for number in (2, 9, 1, 3)])
    assert np.array_equal(drawn[0].image, film(2, 60)[:, :50]) and drawn[0].image.dtype == np.uint8
    assert drawn[1].image is None and "r9.png" in drawn[1].error and "不存在" in drawn[1].error
    assert np.array_equal(drawn[2].image, film(1)) and not drawn[2].error
    assert np.array_equal(drawn[3].image, np.asarray(Image.fromarray(colour).convert("L")))
    assert generator.title == tmp_path.name


def test_a_pattern_with_folders_and_brackets(tmp_path):
    (tmp_path / "out[1]" / "p10").mkdir(parents=True)
    Image.fromarray(film(1)).save(tmp_path / "out[1]" / "p10" / "s5_0.jpg", quality=100)
    generator = FolderGenerator(str(tmp_path), "out[1]/{id}_0.jpg")
    assert generator.draw([request("", identity="p10/s5")])[0].image.shape == (SIZE, SIZE)


def test_broken_files_are_errors_of_their_pair(tmp_path):
    write_images(tmp_path, good=film(1))
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "bomb.png").write_bytes(bomb(40_000, 40_000))
    os.symlink(tmp_path / "nowhere", tmp_path / "link.png")
    names = ["cut", "text", "empty", "bomb", "link"]
    drawn = FolderGenerator(str(tmp_path)).draw([request("", identity=name) for name in names])
    for one, told in zip(drawn, ("truncated", "不是", "0 字节", "bomb", "不存在"), strict=True):
        assert one.image is None and told in one.error and str(tmp_path) not in one.error


@pytest.mark.parametrize("identity", [
    "", "../secret", "a/../../secret", "/etc/passwd", "a\0b", "a\nb", "x" * 5000, ".."])
def test_an_id_never_leads_out_of_the_folder(tmp_path, identity):
    write_images(tmp_path, secret=film(1))
    (tmp_path / "in").mkdir()
    write_images(tmp_path / "in", a=film(2))
    drawn = FolderGenerator(str(tmp_path / "in")).draw([request("", identity=identity)])[0]
    assert drawn.image is None and drawn.error


@given(st.text())
def test_any_id_is_an_image_or_an_error(tmp_path_factory, identity):
    folder = tmp_path_factory.getbasetemp() / "any_id"
    folder.mkdir(exist_ok=True)
    write_images(folder, a=film(2))
    drawn = FolderGenerator(str(folder)).draw([request("", identity=identity)])[0]
    assert (drawn.image is None) == bool(drawn.error)


@pytest.mark.parametrize("arguments, told", [
    (("nowhere",), "Generator.folder"), ((".", "image.png"), "{id}"), ((".", "{id}"), "Generator.pattern"),
    ((".", "{id}.exe"), "Generator.pattern"), ((".", "../{id}.png"), "Generator.pattern"),
    ((".", "/tmp/{id}.png"), "Generator.pattern"), ((".", "{id}.jpg"), "没有 .jpg 文件")])
def test_a_wrong_folder_or_pattern_is_one_line(tmp_path, monkeypatch, arguments, told):
    write_images(tmp_path, a=film(1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(told)):
        FolderGenerator(*arguments)


# ---------------------------------------------------------------- an endpoint

def respond(handler, body: dict, nth: int) -> None:
    """As the prompt says, in the protocol that the request's path tells."""
    def image(data: bytes | str | None, **more):
        text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
        openai = {"created": 1, "data": [{"b64_json": text} | more]}
        plain = {"images": [text]} if body["seed"] % 2 else {"image": text}
        handler.answer(200, openai if handler.path.endswith("/images/generations") else plain)

    side = int(body["size"].split("x")[0]) if "size" in body else body["width"]
    pixels = film(body["seed"], side)
    mode = body["prompt"]
    if mode in ("drops", "halves", "busy", "empty once") and nth > 1 or mode == "fails" and nth > 2:
        mode = "good"
    if mode == "slow":
        time.sleep(0.03)
    whole = encoded(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    {"good": lambda: image(whole), "slow": lambda: image(whole),
     "jpeg": lambda: image(encoded(pixels, "JPEG", quality=100)),
     "colour": lambda: image(encoded(np.stack([pixels, pixels, 255 - pixels], axis=-1))),
     "data url": lambda: image("data:image/png;base64," + base64.b64encode(whole).decode()),
     "wrapped": lambda: image(base64.encodebytes(whole).decode()),
     "drops": handler.drop, "halves": handler.half, "busy": lambda: handler.answer(429, {}, Retry_After="0.01"),
     "fails": lambda: handler.answer(500, b"<html>"), "dead": lambda: handler.answer(503, b""),
     "empty once": lambda: handler.answer(200, {"error": "too many requests"}),
     "refuses": lambda: handler.answer(400, {"error": {"message": f"unsafe\x1b[31m prompt, key {KEY}"}}),
     "wrong size": lambda: image(encoded(pixels[:-1])), "larger": lambda: image(encoded(film(1, side + 1))),
     "cut": lambda: image(whole[:-20]), "flipped": lambda: image(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]),
     "gif": lambda: image(encoded(pixels, "GIF")), "tiff": lambda: image(encoded(pixels, "TIFF")),
     "text": lambda: image(b"hello"), "no base64": lambda: image("%%%%"), "null": lambda: image(None),
     "number": lambda: image(5), "none": lambda: image(""),
     "link": lambda: handler.answer(200, {"data": [{"url": handler.server.root + "/secret"}]}),
     "bomb": lambda: image(bomb(40_000, 40_000)), "deep bomb": lambda: image(bomb(side, side)),
     "frames": lambda: image(encoded(pixels, "PNG", save_all=True, append_images=[Image.fromarray(255 - pixels)])),
     "huge": handler.endless,
     "list": lambda: handler.answer(200, {"data": [[]], "images": [[]]}),
     "strange": lambda: handler.answer(200, {"data": {"b64_json": 3}, "image": {"a": 1}})}[mode]()


@pytest.fixture
def server():
    running = Server(respond, lambda body: (body["prompt"], body["seed"]))
    yield running
    running.stop()


@pytest.fixture(params=["openai", "json"])
def generator(request, server):
    """Make a generator that asks the server, in both protocols."""
    own = {"url": server.root + "/v1", "model": "roentgen"} if request.param == "openai" else {
        "url": server.root + "/draw"}

    def make(**arguments) -> EndpointGenerator:
        return EndpointGenerator(**own | {"protocol": request.param, "size": SIZE, "retries": 2, "timeout": 20.0,
                                          "key_variable": "TEST_API_KEY"} | arguments)

    make.protocol = request.param
    return make


GOOD = ["good", "slow", "data url", "wrapped", "drops", "halves", "busy", "fails", "empty once"]
BAD = {"dead": "HTTP 503", "refuses": r"HTTP 400.*unsafe.*\*\*\*", "wrong size": "48×47", "larger": "49×49",
       "cut": "truncated|损坏|解码", "flipped": "损坏|解码|识别", "gif": "不是 PNG", "tiff": "不是 PNG",
       "text": "不是 PNG", "no base64": "base64", "null": "base64|empty", "number": "base64", "bomb": "40000|损坏",
       "frames": "帧", "strange": "base64", "list": "base64|empty", "none": "base64|empty|不是 PNG",
       "deep bomb": "损坏|解码|truncated"}


def test_every_request_is_accounted_for_in_order(server, generator):
    made = generator(concurrency=8)
    names = [mode for _ in range(2) for mode in [*GOOD, *BAD, "jpeg", "colour"]]
    drawn = made.draw([request(mode, seed) for seed, mode in enumerate(names)])
    assert len(drawn) == len(names)
    for seed, (mode, one) in enumerate(zip(names, drawn, strict=True)):
        if mode in BAD and not (mode == "deep bomb" and one.image is not None):
            assert one.image is None and re.search(BAD[mode], one.error), (mode, one.error)
            assert KEY not in one.error and one.error.isprintable()
            continue
        assert not one.error and one.image.shape == (SIZE, SIZE) and one.image.dtype == np.uint8, (mode, one.error)
        if mode in GOOD:
            assert np.array_equal(one.image, film(seed))
    jpeg = drawn[names.index("jpeg")].image
    assert np.abs(jpeg.astype(int) - film(names.index("jpeg"))).mean() < 3
    assert made.sent == len(server.asked)


def test_the_request_is_what_the_protocol_wants(server, generator):
    made = generator(options={"guidance_scale": 4, "num_inference_steps": 50})
    made.draw([request("good", 2**40 + 7)])
    path, body, key = server.asked[0]
    common = {"prompt": "good", "seed": 7, "guidance_scale": 4, "num_inference_steps": 50}
    if generator.protocol == "openai":
        assert path == "/v1/images/generations" and made.title == "roentgen"
        assert body == common | {"model": "roentgen", "n": 1, "size": "48x48", "response_format": "b64_json"}
        generator(url=f" {server.root}/v1/images/generations/ ").draw([request("good")])
        assert server.asked[1][0] == "/v1/images/generations"
    else:
        assert path == "/draw" and made.title == f"{server.root}/draw"
        assert body == common | {"width": SIZE, "height": SIZE}
    assert key == f"Bearer {KEY}"
    generator(key_variable=None).draw([request("good")])
    assert server.asked[-1][2] is None


def test_alone_or_in_a_batch_an_image_is_the_same(generator):
    requests = [request("good", seed) for seed in range(6)]
    together = generator().draw(requests)
    alone = [generator().draw([one])[0] for one in requests[::-1]][::-1]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(together, alone, strict=True))


def test_a_link_is_not_followed(server):
    made = EndpointGenerator(server.root, "m", SIZE)
    assert "url" in made.draw([request("link")])[0].error
    assert len(server.asked) == 1


def test_an_endless_answer_is_left(generator):
    drawn = generator(retries=0, timeout=10.0).draw([request("huge")])[0]
    assert drawn.image is None and "MiB" in drawn.error


def test_several_are_in_flight_and_no_more_than_allowed(server, generator):
    generator(concurrency=3).draw([request("slow", seed) for seed in range(12)])
    assert 1 < server.most <= 3


@pytest.mark.parametrize("status, told", [(401, "TEST_API_KEY"), (404, "Generator.model"), (402, "余额")])
def test_what_no_request_survives_stops_the_run(server, generator, status, told):
    made = generator(concurrency=2)
    server.respond = lambda handler, body, nth: handler.answer(status, {"error": {"message": "no"}})
    with pytest.raises(UserError, match=told):
        made.draw([request("good", seed) for seed in range(100)])
    assert len(server.asked) < 30


def test_nobody_there_is_told_at_the_start_and_later(server, generator):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="Generator.url.*连不上"):
            generator(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    made = generator(retries=1)
    server.stop()
    with pytest.raises(UserError, match="连不上"):
        made.draw([request("good")])


@pytest.mark.parametrize("arguments, told", [
    ({"size": 8}, "Generator.size"), ({"concurrency": 0}, "Generator.concurrency"),
    ({"timeout": float("nan")}, "Generator.timeout"), ({"options": {"seed": 1}}, "Generator.options.seed"),
    ({"options": {"a": float("nan")}}, "Generator.options"), ({"options": {"a": object()}}, "Generator.options"),
    ({"url": "host:1"}, "http://"), ({"key_variable": "ABSENT_API_KEY"}, "ABSENT_API_KEY")])
def test_wrong_arguments_are_one_line(generator, arguments, told):
    with pytest.raises(UserError, match=told):
        generator(**arguments)


@pytest.mark.parametrize("protocol, model", [("openai", None), ("json", "m")])
def test_a_model_belongs_to_one_protocol(server, protocol, model):
    with pytest.raises(UserError, match="Generator.model"):
        EndpointGenerator(server.root, model, SIZE, protocol)


def test_a_bomb_is_refused_before_it_is_unpacked():
    started = time.perf_counter()
    for width, height in ((40_000, 40_000), (2**31 - 1, 2**31 - 1), (9_000, 9_000)):
        with pytest.raises(NoImage):
            decode_grey(bomb(width, height), SIZE, SIZE)
    assert time.perf_counter() - started < 2


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
def test_any_bytes_are_an_image_or_a_reason(data, head):
    with pytest.raises(NoImage, match=r"^\S"):
        decode_grey(head + data, SIZE, SIZE)


@given(st.data())
def test_a_damaged_png_is_an_image_or_a_reason(data):
    whole = bytearray(encoded(film(3)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        assert decode_grey(bytes(whole), SIZE, SIZE).shape == (SIZE, SIZE)
    except NoImage as error:
        assert "\n" not in str(error)
