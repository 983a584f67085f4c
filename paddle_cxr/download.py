"""Fetching a file over a bad line: resumed, checked, and only then given its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from paddle_cxr.errors import UserError

if TYPE_CHECKING:
    import requests

CACHE_VARIABLE = "PADDLE_CXR_CACHE"
TIMEOUT = (3.0, 20.0)  # seconds to connect, seconds without a byte: no network must fail within ten
STALLS = 4  # how often in a row a broken transfer is taken up again without getting on
CHUNK = 1 << 16  # bytes; less than a whole one is lost where a line breaks

# Paddle's ImageNet weights and their MD5, as paddle/vision/models/resnet.py lists them.
PUBLISHED = "https://paddle-hapi.bj.bcebos.com/models/{}.pdparams"
PUBLISHED_MD5 = {
    "ResNet18": "cf548f46534aa3560945be4b95cd11c4",
    "ResNet34": "8d2275cf8706028345f78ac0e1d31969",
    "ResNet50": "ca6f485ee1ab0492d38f323885b0ad80",
    "ResNet101": "02f35f034ca3858e1e54d4036443c92d",
    "ResNet152": "7ad16a2f1e7333859ff986138630fd7a",
}


def cache_folder() -> Path:
    """Where downloads are kept: ``$PADDLE_CXR_CACHE``, or ``~/.cache/paddle_cxr``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "paddle_cxr")


def resolve_pretrained(value: bool | str | dict[str, Any] | None, arch_name: str) -> Path | None:
    """The weights that ``Arch.pretrained`` means, downloaded if need be.

    Args:
        value: true (Paddle's ImageNet weights for ``arch_name``), a local path, ``{url: …, checksum: …}``, or
            false / null for none.
        arch_name: e.g. ``ResNet50``.

    Raises:
        UserError: no such file, nothing published for the architecture, or the download failed.
    """
    where = "Arch.pretrained"
    if value is None or value is False:
        return None
    if value is True:
        if arch_name not in PUBLISHED_MD5:
            raise UserError(f"{where}：{arch_name} 没有公开的 ImageNet 权重（有 {'、'.join(PUBLISHED_MD5)}）；"
                            "请写本地路径，或 false")
        url, md5 = PUBLISHED.format(arch_name.lower()), PUBLISHED_MD5[arch_name]
        return fetch(url, f"md5:{md5}", cache_folder() / "weights")
    if isinstance(value, dict):
        if set(value) != {"url", "checksum"} or not all(isinstance(text, str) for text in value.values()):
            raise UserError(f"{where}：应为 {{url: …, checksum: \"sha256:…\"}}，现在是 {value!r}")
        return fetch(value["url"], value["checksum"], cache_folder() / "weights")
    if isinstance(value, str) and urlsplit(value).scheme in ("http", "https"):
        raise UserError(f"{where}：网址要连同校验和（checksum）一起给：{{url: {value}, checksum: \"sha256:…\"}}")
    if not Path(value).exists():
        raise UserError(f"{where}：找不到权重 {value}；应为 true、false、本地路径或 {{url: …, checksum: …}}")
    return Path(value)


def fetch(url: str, checksum: str, into: str | Path) -> Path:
    """Download ``url`` into the folder ``into`` under its own name, unless a file with that checksum is there.

    An interrupted download stays as ``NAME.part`` and is taken up where it stopped, now and in the next run; the file
    gets its name only when its checksum is right.  Several processes may ask for the same file: one downloads.

    Args:
        url: http or https.
        checksum: ``sha256:…`` or ``md5:…`` in hexadecimal digits.
        into: made if absent.

    Returns:
        The file's path.

    Raises:
        UserError: no network, an HTTP error, a wrong checksum, no space or permission; says where to put the file
            when it has to be fetched by hand.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"只能下载 http 或 https 网址，现在是 {url}")
    algorithm, digest = _parse_checksum(checksum)
    target = Path(into) / _file_name(url)
    with _readable_errors(url, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                part = target.with_name(target.name + ".part")
                part.touch()
                _download(url, part, algorithm, digest)
                os.replace(part, target)
                return target
        found = _digest(target, algorithm)
    if found != digest:
        raise UserError(f"校验和不符（checksum）：{target} 的 {algorithm} 是 {found}，应为 {digest}；"
                        "请删除这个文件后重试")
    return target


def _file_name(url: str) -> str:
    """The last part of the URL's path, safe as a file name."""
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path).rpartition("/")[2]).lstrip(".")
    return name or "download"


def _parse_checksum(checksum: str) -> tuple[str, str]:
    """``"md5:ab…"`` → (``"md5"``, ``"ab…"``)."""
    lengths = {"sha256": 64, "md5": 32}
    algorithm, _, digest = checksum.strip().lower().partition(":")
    if len(digest) != lengths.get(algorithm) or not set(digest) <= set("0123456789abcdef"):
        raise UserError(f"校验和（checksum）应写成 sha256:64 位十六进制 或 md5:32 位十六进制，现在是 {checksum!r}")
    return algorithm, digest


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, part: Path, algorithm: str, digest: str) -> None:
    """Fill ``part`` until its checksum is right; raises OSError, requests' errors, or :class:`UserError`."""
    resumed = part.stat().st_size > 0
    _transfer(url, part)
    found = _digest(part, algorithm)
    if found != digest and resumed:  # what an earlier run left may be of another version of the file
        part.write_bytes(b"")
        _transfer(url, part)
        found = _digest(part, algorithm)
    if found != digest:
        part.unlink()
        raise UserError(f"校验和不符（checksum）：{url} 的 {algorithm} 是 {found}，应为 {digest}；"
                        "文件已丢弃，请核对网址和校验和，或稍后重试")


def _transfer(url: str, part: Path) -> None:
    """Append the rest of the file to ``part``; a broken transfer is taken up again for as long as it gets on."""
    import requests

    with _session() as session:
        stalls = 0
        while True:
            before = part.stat().st_size
            if _append(session, url, part):
                return
            stalls = 0 if part.stat().st_size > before else stalls + 1
            if stalls > STALLS:
                raise requests.exceptions.ConnectionError("传输反复中断")
            time.sleep(0.2 * 2**stalls)


def _session() -> requests.Session:
    """A session that tries again, with growing pauses, when a server is busy or a connection fails."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(total=3, connect=1, read=1, status=3, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504),
                  raise_on_status=False)
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _append(session: requests.Session, url: str, part: Path) -> bool:
    """One request for what ``part`` lacks (RFC 9110, section 14: Range); False when the line broke in the middle.

    Raises requests' errors when no connection came about (the session has retried) or the server refused.
    """
    have = part.stat().st_size
    headers = {"Accept-Encoding": "identity"}  # a range of a compressed reply would not be a range of the file
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if reply.status_code == 416:  # nothing after the bytes we have: the checksum will tell
            return True
        reply.raise_for_status()
        if reply.status_code != 206 or not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file
        length = reply.headers.get("Content-Length")
        return _write_body(reply, part, have, have + int(length) if length else None)


def _write_body(reply: requests.Response, part: Path, start: int, total: int | None) -> bool:
    """Write a reply's bytes into ``part`` from ``start`` on; False when fewer came than promised."""
    import requests
    from tqdm import tqdm

    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with open(part, "r+b") as file, bar:
        file.truncate(start)
        file.seek(start)
        try:
            for chunk in reply.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
            return False
        return total is None or file.tell() >= total  # urllib3 1.x does not notice a line that was cut


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time in, where the system can (not on Windows)."""
    with open(path, "ab") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _readable_errors(url: str, target: Path) -> Iterator[None]:
    """Every way a download fails, as one line that says what to do."""
    import requests

    by_hand = f"也可以用浏览器下载 {url}，存为 {target}"
    try:
        yield
    except requests.exceptions.HTTPError as error:
        raise UserError(f"下载失败：{url} 返回 HTTP {error.response.status_code}；请检查网址。{by_hand}") from None
    except requests.exceptions.RequestException as error:  # before OSError, of which it is one
        raise UserError(f"下载失败（{_reason(error)}）：请检查网络或代理（proxy）；已下载的部分会保留，重试即续传。"
                        f"{by_hand}") from None
    except OSError as error:
        raise UserError(f"无法写入 {target}：{error.strerror or error}；请检查磁盘空间和权限，"
                        f"或用环境变量 {CACHE_VARIABLE} 换一个目录") from None


def _reason(error: BaseException) -> str:
    """What lies at the bottom of requests' nested errors, in a few words."""
    text = str(error)
    for sign, reason in (("resolve", "域名解析失败，没有网络？"), ("timed out", "连接超时"), ("refused", "连接被拒绝"),
                         ("unreachable", "网络不可达"), ("SSL", "证书错误 SSL"), ("Proxy", "代理错误 proxy")):
        if sign in text:
            return reason
    return type(error).__name__
