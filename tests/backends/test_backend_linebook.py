"""A third party's backend: installed from its own package, it keeps the contract, and zapd uses it unchanged."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.app_scene import ALICE, CONFIGURATION, Asking, wait_for, z85
from support.fault_proxy import FaultProxy
from support.hostile_canary import Hunt, canary
from support.serving import Zapd
from support.third_party import Book, linebook, linebook_installed, serving_book  # noqa: F401 - fixtures

from zapd.auth.backend import Outcome
from zapd.auth.catalog import Catalog
from zapd.testing import BackendContract, ask

pytestmark = pytest.mark.usefixtures("linebook")


class TestLinebook(BackendContract):
    """Against its own server, behind a proxy that breaks the line."""

    @pytest.fixture(autouse=True)
    def server(self, linebook: Path) -> Iterator[None]:  # noqa: F811
        book = Book({"ada": "lovelace", "bob": "cooper"}, groups={"ada": "staff,lab"}, barred={"bob"}, secret="s3")
        with serving_book(book), FaultProxy(book.port) as self.proxy:
            yield

    async def make(self, context):
        from zapd_linebook import LinebookBackend

        settings = {"address": f"127.0.0.1:{self.proxy.port}", "secret": "s3"}
        return LinebookBackend.from_settings("book", settings, context)

    def accepted(self):
        return ask("ada", b"lovelace")

    def rejected(self):
        return ask("ada", b"byron")

    def unknown(self):
        return ask("eve", b"lovelace")

    def barred(self):
        return ask("bob", b"cooper")

    async def break_source(self, context, backend):
        self.proxy.refuse()
        return True

    async def mend_source(self, context, backend):
        self.proxy.heal()
        return True

    async def hang_source(self, context, backend):
        self.proxy.hang()
        return True

    async def test_groups_come_along(self, tmp_path):
        """What the server says of somebody is what the principal carries."""
        async with self.running(tmp_path) as (backend, _):
            verdict = await backend.check(self.accepted())
            assert verdict.outcome is Outcome.ACCEPT
            assert verdict.principal.groups == ("staff", "lab")


def test_the_catalog_finds_it() -> None:
    """Its type is there by being installed, and by nothing else."""
    assert "linebook" in Catalog().names()


def test_zapd_uses_it_like_its_own(tmp_path: Path) -> None:
    """check-config takes its settings and names a wrong one; it decides; its trouble is shown with the time, and
    its healing too; and neither its secret nor a password is in anything that zapd wrote."""
    secret, right, wrong = canary(), canary(), canary()
    hunt = Hunt({"the book's secret": secret.encode(), "a password": right.encode(), "a guess": wrong.encode()})
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    file = tmp_path / "book.secret"
    file.touch(mode=0o600)
    file.write_text(secret)
    book = Book({"ada": right}, groups={"ada": "staff"}, secret=secret)
    with serving_book(book), FaultProxy(book.port) as proxy:
        table = (
            f'[backend.book]\ntype = "linebook"\naddress = "127.0.0.1:{proxy.port}"\nsecret = "file:book.secret"\n'
            'deadline = "300ms"\n'
        )
        domain = '[domain.books]\nmechanisms = ["PLAIN"]\nbackends = ["book"]\n'
        zapd.configure(CONFIGURATION + table + 'colour = "red"\n' + domain)
        refused = zapd.run("check-config")
        assert refused.returncode == 2
        assert "backend.book.colour: unknown setting 'colour'" in refused.stdout + refused.stderr
        zapd.configure(CONFIGURATION + table + domain)
        assert zapd.run("check-config").returncode == 0
        proxy.refuse()
        with zapd, Asking(zapd) as asking:
            (shown,) = (each for each in zapd.ask("GET", "/v1/backends")["items"] if each["name"] == "book")
            assert (shown["state"], shown["reason"]) == (
                "disabled",
                f"127.0.0.1:{proxy.port} cannot be asked (ConnectionRefusedError)",
            )
            assert asking.plain("ada", right, "books") == 300
            proxy.heal()
            assert wait_for(lambda: asking.plain("ada", right, "books") == 200)
            assert asking.whole(b"ada", right.encode(), domain="books", mechanism="PLAIN") == (200, "ada")
            assert asking.plain("ada", wrong, "books") == 400
            assert asking.plain("eve", right, "books") == 400
            for break_it in (proxy.refuse, proxy.hang, proxy.answer_garbage, proxy.die_mid_answer):
                break_it()
                for number in range(6):  # what was answered before may be remembered: ask as somebody else
                    assert asking.plain(f"guest{number}", wrong, "books") == 300
                (shown,) = (each for each in zapd.ask("GET", "/v1/backends")["items"] if each["name"] == "book")
                assert shown["circuit"] in {"open", "half_open"}
                assert shown["last_error"]
                assert shown["last_error_at"]
                hunt.through("/v1/backends", json.dumps(shown))
                proxy.heal()
                assert wait_for(lambda: asking.plain("mary", wrong, "books") == 400)
            listed = zapd.run("backend", "list")
            assert "linebook" in listed.stdout
            assert "closed" in listed.stdout
            for path in ("/metrics", "/readyz", "/v1/audit?limit=1000", "/v1/domains"):
                hunt.through(path, zapd.call("GET", path).content)
            hunt.through("zapd backend list", listed.stdout + listed.stderr)
            assert zapd.process is not None
            hunt.through_process(zapd.process.pid)
    hunt.through_files(tmp_path, but=[file])
    assert hunt.searched > 10_000
    assert not hunt.found, sorted(set(hunt.found))
    assert "Traceback" not in zapd.logged()


def test_its_last_yes_stands_in_where_that_is_allowed(tmp_path: Path) -> None:
    """With ``stale_if_error`` the very same login is let in during an outage, journalled and counted as that, and
    nobody else; a reload ends it, and without the setting there is none."""
    book = Book({"ada": "lovelace"})
    with serving_book(book), FaultProxy(book.port) as proxy:
        table = f'type = "linebook"\naddress = "127.0.0.1:{proxy.port}"\ncache_good = "0s"\n'
        text = CONFIGURATION + f'[backend.strict]\n{table}[backend.kept]\n{table}stale_if_error = "5m"\n'
        for name in ("strict", "kept"):
            text += f'[domain.{name}]\nmechanisms = ["PLAIN"]\nbackends = ["{name}"]\n'
        with Zapd(tmp_path, configuration=text) as zapd, Asking(zapd) as asking:
            assert asking.plain("ada", "lovelace", "kept") == 200
            assert asking.plain("ada", "lovelace", "strict") == 200
            proxy.refuse()
            assert asking.whole(b"ada", b"lovelace", domain="kept", mechanism="PLAIN") == (200, "ada")
            assert asking.plain("ada", "byron", "kept") == 300
            assert asking.plain("ada", "lovelace", "strict") == 300
            page = zapd.call("GET", "/metrics").text
            assert 'zapd_backend_stale_answers_total{name="kept"} 1.0' in page
            assert 'zapd_backend_stale_answers_total{name="strict"} 0.0' in page
            zapd.configure(text + '[domain.more]\nmechanisms = ["PLAIN"]\nbackends = ["kept"]\n')
            zapd.signal(signal.SIGHUP)
            assert wait_for(lambda: asking.plain("ada", "lovelace", "kept") == 300)
            proxy.heal()
            assert wait_for(lambda: asking.plain("ada", "lovelace", "kept") == 200)
        assert zapd.journal().count('"reason":"granted_stale"') >= 1
        assert '[["kept","stale",' in zapd.journal()


def test_one_that_hangs_at_the_start_holds_nobody_up(tmp_path: Path) -> None:
    """zapd decides for other domains although a backend is still starting, and for its own once it answers."""
    with serving_book(Book({"ada": "lovelace"}, secret="s3")) as book, FaultProxy(book.port) as proxy:
        text = f'{CONFIGURATION}[backend.book]\ntype = "linebook"\naddress = "127.0.0.1:{proxy.port}"\n'
        text += 'secret = "s3"\n[domain.books]\nmechanisms = ["PLAIN"]\nbackends = ["book"]\n'
        proxy.hang()
        with Zapd(tmp_path, configuration=text) as zapd, Asking(zapd) as asking:
            (shown,) = (each for each in zapd.ask("GET", "/v1/backends")["items"] if each["name"] == "book")
            assert shown["state"] in {"starting", "disabled"}  # the latter on a slow machine
            zapd.add_key(z85(ALICE), "alice", domains=["orders"])
            assert asking.ask(ALICE) == 200
            assert asking.plain("ada", "lovelace", "books") == 300
            proxy.heal()
            assert wait_for(lambda: asking.plain("ada", "lovelace", "books") == 200)
