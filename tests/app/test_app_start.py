"""What keeps zapd from starting: one sentence with the mend, the right exit code, and nothing left behind."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.app_scene import CONFIGURATION
from support.serving import Zapd

Spoil = Callable[[Zapd], None]


def edit(old: str, new: str) -> Spoil:
    """Change a word of the configuration."""

    def spoil(zapd: Zapd) -> None:
        text = zapd.config.read_text()
        assert old in text
        zapd.configure(text.replace(old, new))

    return spoil


def remove(name: str) -> Spoil:
    return lambda zapd: (zapd.folder / name).unlink()


def let_everybody_read(name: str) -> Spoil:
    return lambda zapd: (zapd.folder / name).chmod(0o644)


def link_socket(zapd: Zapd) -> None:
    (zapd.folder / "data" / "zap.sock").symlink_to(zapd.folder / "elsewhere.sock")


def put_file_at_socket(zapd: Zapd) -> None:
    (zapd.folder / "data" / "zap.sock").write_text("")


def put_folder_at_configuration(zapd: Zapd) -> None:
    zapd.config.unlink()
    zapd.config.mkdir()


def put_folder_at_lock(zapd: Zapd) -> None:
    (zapd.folder / "data" / "serve.lock").mkdir()


CURVE = edit("[admin]", '[[zap]]\nlisten = "tcp://127.0.0.1:0"\nmechanism = "CURVE"\n[admin]')


def with_curve(spoil: Spoil) -> Spoil:
    def both(zapd: Zapd) -> None:
        CURVE(zapd)
        spoil(zapd)

    return both


CASES: dict[str, tuple[Spoil, int, list[str]]] = {
    "no configuration": (remove("zapd.toml"), 2, ["zapd.toml"]),
    "a folder in its place": (put_folder_at_configuration, 2, ["zapd.toml"]),
    "half-edited": (edit("[domain.orders]", "[domain.orders"), 2, ["line 15"]),
    "unknown setting": (edit("drain", "drian"), 2, ["drian", "drain"]),
    "unknown type": (edit('type = "sql"', 'type = "sqll"'), 2, ["sqll", "sql"]),
    "unknown backend": (edit('backends = ["keys"]', 'backends = ["kyes"]'), 2, ["kyes", "keys"]),
    "public NULL": (edit("ipc://data/zap.sock", "tcp://0.0.0.0:0"), 2, ["NULL", "CURVE"]),
    "no server key": (with_curve(remove("data/server.key")), 2, ["server.key", "keygen"]),
    "key read by others": (with_curve(let_everybody_read("data/server.key")), 2, ["server.key", "chmod"]),
    "journal key read by others": (let_everybody_read("data/journal.key"), 2, ["journal.key", "chmod"]),
    "a link for a socket": (link_socket, 1, ["zap.sock", "link"]),
    "a file for a socket": (put_file_at_socket, 1, ["zap.sock", "move it"]),
    "a lock that cannot be opened": (put_folder_at_lock, 1, ["serve.lock", "must be able to write"]),
    "a file where data shall be": (edit('"data"', '"zapd.toml"'), 1, ["data_dir", "zapd.toml", "make it"]),
    "no folder for a socket": (edit("data/zap.sock", "nowhere/zap.sock"), 1, ["nowhere"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_started_says_why_and_how_to_mend_it(tmp_path: Path, case: str) -> None:
    """The last line names the thing and the way out; no traceback, no lock or socket is left."""
    spoil, code, words = CASES[case]
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    spoil(zapd)
    ended = zapd.run("serve", "-c", str(zapd.config))
    assert ended.returncode == code, ended.stderr
    said = ended.stderr[ended.stderr.index("zapd: ") :] if "zapd: " in ended.stderr else ended.stderr
    for word in words:
        assert word in said
    assert "Traceback" not in ended.stderr
    assert "fault of zapd" not in ended.stderr
    assert "decides" not in ended.stdout


def test_a_port_in_use_is_named_and_what_was_up_goes_down_again(tmp_path: Path) -> None:
    """The ZAP port and the admin port; afterwards the same folder starts as if nothing had been."""
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        good = zapd.config.read_text()
        edit("ipc://data/zap.sock", f"tcp://127.0.0.1:{port}")(zapd)
        ended = zapd.run("serve")
        assert (ended.returncode, str(port) in ended.stderr) == (1, True), ended.stderr
        zapd.configure(good)
        edit("127.0.0.1:0", f"127.0.0.1:{port}")(zapd)
        ended = zapd.run("serve")
        assert ended.returncode == 1
        assert f"127.0.0.1:{port}" in ended.stderr
        assert "[admin] listen" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data" / "zap.sock").exists()
    zapd.configure(good)
    with zapd:
        assert zapd.call("GET", "/readyz").status_code == 200
    assert zapd.run("audit", "verify").returncode == 0


def test_a_second_zapd_on_the_same_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    """Its socket is taken: the second says so and ends, the first goes on."""
    with Zapd(tmp_path, configuration=CONFIGURATION) as zapd:
        ended = zapd.run("serve")
        assert ended.returncode == 1
        assert "Another zapd serves from" in ended.stderr
        assert (tmp_path / "data" / "zap.sock").exists()
        assert zapd.call("GET", "/readyz").status_code == 200


def test_two_zapds_never_share_a_database_file(tmp_path: Path) -> None:
    """On SQLite a data_dir each is not enough, by whatever path the file is named; a database each is."""
    with Zapd(tmp_path / "one", configuration=CONFIGURATION) as first:
        second = Zapd(tmp_path / "two", configuration=CONFIGURATION)
        (tmp_path / "link").symlink_to(tmp_path / "one")
        shared = f'[database]\nurl = "sqlite:///{tmp_path}/link/data/zapd.db"\n[admin]'
        second.configure(CONFIGURATION.replace("[admin]", shared))
        ended = second.run("serve")
        assert ended.returncode == 1
        assert "Another zapd serves from the database" in ended.stderr
        assert "PostgreSQL" in ended.stderr
        assert first.call("GET", "/readyz").status_code == 200
        second.configure(CONFIGURATION)
        with second:
            assert second.call("GET", "/readyz").status_code == 200


def test_a_socket_that_a_killed_zapd_left_is_taken_over(tmp_path: Path) -> None:
    """kill -9 leaves the file; nobody listens there, so the next start replaces it."""
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    zapd.start()
    zapd.stop(signal.SIGKILL)
    assert (tmp_path / "data" / "zap.sock").exists()
    with zapd:
        assert zapd.call("GET", "/readyz").status_code == 200
