"""A page takes the system's temporary folder for its own while it is open: pytest has to have made its before."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def temporary_folder_of_pytest(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path_factory.getbasetemp()
