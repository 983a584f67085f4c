"""Fixtures that the tests with a server on this machine share."""

import pytest
from synthesis.loopback import KEY

from paddle_cxr.synthesis import endpoint


@pytest.fixture
def endpoint_environment(monkeypatch):
    """A key to hide, short pauses between retries, and no proxy between here and here."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
