"""Reaching a server: its URL, its key from the environment, the proxy that the environment names."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from paddle_cxr.errors import UserError

if TYPE_CHECKING:
    import httpx


def check_url(url: str, path: str) -> tuple[str, bool]:
    """The base URL without its end, and whether it means this machine.

    Args:
        url: as in the recipe.
        path: of the component there, for errors.

    Raises:
        UserError: not HTTP or HTTPS, or with a user, a password or parameters in it.
    """
    import httpx

    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.userinfo or parsed.query or parsed.fragment:
        # Neither quoted nor named as "Writer.url：", whose place in the recipe would be quoted: it may hold a key.
        raise UserError(f"配方的 {path}.url 里不要写用户名、密码或 ? 参数；"
                        "密钥放进环境变量，并在 key_variable 写变量名")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"{path}.url：应为 http:// 或 https:// 开头的网址（例如 http://127.0.0.1:8000/v1），"
                        f"现在是 {url!r}")
    return str(parsed).rstrip("/").removesuffix("/chat/completions"), _is_local(parsed.host)


def _is_local(host: str) -> bool:
    """Whether a host is this machine; servers print 0.0.0.0 as where they listen."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def origin(url: str) -> str:
    """Scheme, host and port of a URL; empty for one that has none or is no URL."""
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return ""
    return f"{parsed.scheme}://{parsed.netloc.decode()}" if parsed.host else ""


def check_variable(variable: str, path: str) -> None:
    """Refuse what is no name of an environment variable: who mistakes it for the key has written the key there.

    Raises:
        UserError: neither quoted nor named as "Writer.key_variable：", whose place in the recipe would be quoted.
    """
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", variable):
        raise UserError(f"配方的 {path}.key_variable 应为环境变量的名字（大写字母、数字、下划线，"
                        "例如 OPENAI_API_KEY），不是密钥本身；如果已经写进文件，请删掉并换一个密钥")


def read_key(variable: str | None, path: str) -> str:
    """The API key from the environment; empty where ``variable`` is None.

    Raises:
        UserError: no name of a variable, nothing in it, or characters no header can have.
    """
    if variable is None:
        return ""
    check_variable(variable, path)
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"{path}.key_variable：环境变量 {variable} 没有设置；请先 export {variable}=密钥，"
                        "服务不需要密钥时写 key_variable: null")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{path}.key_variable：环境变量 {variable} 中的密钥含有不可用的字符；请重新复制密钥")
    return key


def open_client(headers: dict[str, str], proxies: bool, connections: int, path: str) -> httpx.Client:
    """Connections to one server; ``proxies``: through the proxy that the environment names, if it names one.

    Raises:
        UserError: that proxy cannot be used.
    """
    import httpx

    try:
        return httpx.Client(headers=headers, trust_env=proxies, limits=httpx.Limits(max_connections=connections))
    except ImportError:
        raise UserError(f"{path}.url：环境变量里的代理（ALL_PROXY、HTTPS_PROXY 等）是 socks 代理，要先 "
                        "pip install \"httpx[socks]\"；不需要代理就 unset 这些变量") from None
    except (ValueError, httpx.InvalidURL):  # not quoted: a proxy's URL may hold a password
        raise UserError(f"{path}.url：环境变量里的代理（ALL_PROXY、HTTPS_PROXY、NO_PROXY 等）写得不对；"
                        "应如 http://主机:端口，不需要代理就 unset 这些变量") from None


def failure_in_words(error: Exception) -> str:
    """Why no connection came about, in a few words."""
    text = str(error).lower()
    for sign, reason in (("refused", "连接被拒绝"), ("name or service", "域名解析失败"), ("resolution", "域名解析失败"),
                         ("getaddrinfo", "域名解析失败"), ("timed out", "连接超时"), ("unreachable", "网络不可达"),
                         ("certificate", "证书错误 SSL"), ("ssl", "证书错误 SSL")):
        if sign in text:
            return reason
    return type(error).__name__
