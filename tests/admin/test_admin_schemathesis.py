"""schemathesis against a running zapd: whatever fits the OpenAPI document, and whatever just does not, gets an
answer that it names, of the shape that it names, and never one of the 500s."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.app_scene import CONFIGURATION
from support.serving import Zapd

pytestmark = pytest.mark.xdist_group("schemathesis")
"""One worker, one zapd."""

ENDLESS = "stream$"
WEAPONS = r"/v1/tokens/"
"""The tool finds its own token in the list and revokes it."""
WITH_NAMES = r"agents/\{name\}/rotate|users/\{name\}/password|import$"
"""Names may hold a slash, so that these are names of users and agents too, and take more methods."""
OURS = "positive_data_acceptance,negative_data_rejection,ignored_auth"
"""Not asked: what a schema cannot say is refused too; and too many wrong tokens get 429, which has a test of its
own."""


@pytest.fixture(scope="module")
def zapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zapd]:
    with Zapd(tmp_path_factory.mktemp("schemathesis"), configuration=CONFIGURATION) as made:
        yield made


@pytest.mark.parametrize(
    "choice",
    [
        ["--exclude-path-regex", f"{ENDLESS}|{WEAPONS}|{WITH_NAMES}", "--exclude-checks", OURS],
        [
            *("--include-path-regex", WITH_NAMES),
            *("--exclude-checks", f"{OURS},allow_header_conformance,unsupported_method"),
        ],
    ],
    ids=["most paths", "paths behind names"],
)
def test_every_answer_is_documented(zapd: Zapd, tmp_path: Path, choice: list[str]) -> None:
    """Examples, each bound of each parameter and body from both sides, and some more at random."""
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", zapd.admin + "/openapi.json"),
            *("-H", f"Authorization: Bearer {zapd.token}", "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "3", "--generation-deterministic", "--continue-on-failure", "--no-color"),
            *("--warnings", "off"),
            *choice,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert zapd.call("GET", "/healthz").status_code == 200
    assert "a bug in" not in zapd.logged()
