"""A server for the commands that ask one: made once for each worker, and used under names of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_server import Served, run, serving


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `zapd init` filled."""
    folder = tmp_path_factory.mktemp("cli") / "zapd"
    run("init", str(folder))
    return folder


@pytest.fixture(scope="session")
def session_server(made: Path) -> Iterator[Served]:
    with serving(made) as served:
        yield served


@pytest.fixture
def served(session_server: Served) -> Served:
    """The server, with one domain."""
    session_server.domains[:] = ["default"]
    session_server.searched.clear()
    session_server.explained.clear()
    return session_server
