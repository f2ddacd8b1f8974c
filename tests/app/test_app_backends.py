"""A backend that cannot start, one that is edited while it runs, and their neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.app_scene import ALICE, CONFIGURATION, Asking, plain_file, ready, wait_for, z85
from support.serving import Zapd

STAFF = """
[backend.staff]
type = "passwd"
path = "staff.passwd"
[domain.staff]
mechanisms = ["PLAIN"]
backends = ["staff"]
"""


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Not started yet, and without its passwd file."""
    made = Zapd(tmp_path, configuration=CONFIGURATION + STAFF)
    try:
        yield made
    finally:
        made.stop()


def staff(zapd: Zapd) -> tuple[str, str]:
    """(state, reason) of the passwd backend, as `zapd backend list` shows them."""
    listed = zapd.run("backend", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found = next(each for each in json.loads(listed.stdout) if each["name"] == "staff")
    return found["state"], found["reason"] or ""


def reason(zapd: Zapd) -> str:
    items = zapd.ask("GET", "/v1/backends")["items"]
    return next(each["reason"] or "" for each in items if each["name"] == "staff")


def test_a_backend_that_cannot_start_is_shown_and_heals_and_its_neighbours_never_notice(zapd: Zapd) -> None:
    """Its own domain hears 300 and no other; when the file appears it answers, without a command."""
    zapd.start()
    zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    with Asking(zapd) as asking:
        state, why = staff(zapd)
        assert state == "disabled"
        assert "staff.passwd cannot be read: No such file" in why
        assert asking.plain("ada", "lovelace", "staff") == 300
        assert asking.ask(ALICE) == 200
        assert ready(zapd), "one backend does not take its neighbours out of service"
        plain_file(zapd.folder / "staff.passwd", ada="lovelace")
        assert wait_for(lambda: asking.plain("ada", "lovelace", "staff") == 200)
        assert staff(zapd) == ("ready", "")


def test_users_of_a_file_get_in_with_their_password_alone_and_edits_take_force(zapd: Zapd) -> None:
    """Right 200, wrong and unknown 400; an edit counts soon, a broken one keeps the last good and says so."""
    file = zapd.folder / "staff.passwd"
    plain_file(file, ada="lovelace", grace="hopper")
    zapd.start()
    with Asking(zapd) as asking:
        assert asking.whole(b"ada", b"lovelace", domain="staff", mechanism="PLAIN") == (200, "ada")
        assert asking.plain("grace", "hopper", "staff") == 200
        assert asking.plain("ada", "hopper", "staff") == 400
        assert asking.plain("ken", "thompson", "staff") == 400
        assert asking.plain("ada", "", "staff") == 400

        plain_file(file, ada="byron")
        assert wait_for(lambda: asking.plain("ada", "lovelace", "staff") == 400)
        assert asking.plain("ada", "byron", "staff") == 200
        assert wait_for(lambda: asking.plain("grace", "hopper", "staff") == 400)

        file.write_text("half a li")
        assert wait_for(lambda: "stays in force" in reason(zapd))
        assert "half-written" in reason(zapd)
        assert asking.plain("ada", "byron", "staff") == 200

        file.unlink()
        assert wait_for(lambda: asking.plain("ada", "byron", "staff") == 300), "no file is no list of users"
        plain_file(file, ada="byron")
        assert wait_for(lambda: asking.plain("ada", "byron", "staff") == 200)
    for secret in ("lovelace", "hopper", "byron", "thompson"):
        assert secret not in zapd.journal() + zapd.logged()


def test_a_library_that_is_missing_disables_its_backend_alone(zapd: Zapd) -> None:
    """An installed type that cannot be loaded is shown with what to install; zapd lives on."""
    site = zapd.folder / "plugins"
    info = site / "zapd_needy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zapd-needy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zapd.backends]\nneedy = zapd_needy:Needy\n")
    (site / "zapd_needy.py").write_text("import a_library_that_nobody_has\n")
    zapd.configure(
        CONFIGURATION
        + '[backend.needy]\ntype = "needy"\n[domain.needy]\nmechanisms = ["PLAIN"]\nbackends = ["needy"]\n'
    )
    zapd.start(env={"PYTHONPATH": str(site)})
    with Asking(zapd) as asking:
        assert asking.plain("ada", "lovelace", "needy") == 300
        assert asking.ask(ALICE) == 400
    shown = next(each for each in zapd.ask("GET", "/v1/backends")["items"] if each["name"] == "needy")
    assert shown["state"] == "disabled"
    assert "a_library_that_nobody_has" in shown["reason"]
