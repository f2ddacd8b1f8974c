"""The certificates backend: the contract, real czmq's and pyzmq's files, edits good and bad, and many files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth
from structlog.testing import capture_logs
from zapd_backends.certificate_folder import CertificateFolder
from zapd_backends.certificates import CertificatesBackend

from zapd.auth.admission import card_of
from zapd.auth.backend import Backend, BackendContext, Outcome, Question
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.store.certificate_file import MAX_FILE, HoldsSecret, parse_certificate
from zapd.testing import BackendContract, ask
from zapd.zmtp.keys import decode_public_key, encode_key, fingerprint, public_of

CZMQ = r"""
#include <czmq.h>
int main(int count, char **names) {
    zcert_t *pair = zcert_new();
    zcert_set_meta(pair, "name", "%s", "Ada \"the first\" # of them");
    zcert_set_meta(pair, "email", "%s", "ada@example.org");
    zcert_set_meta(pair, "Zapd-Groups", "%s", "admins");
    return zcert_save(pair, names[1]);
}
"""

ADA, BOB, EVE = (public_of(bytes([number]) * 32) for number in (1, 2, 3))


def text(key: bytes, **metadata: str) -> str:
    """A certificate as czmq writes it."""
    told = "".join(f'    {name} = "{value}"\n' for name, value in metadata.items())
    return f'#   ZeroMQ CURVE Public Certificate\n\nmetadata\n{told}curve\n    public-key = "{encode_key(key)}"\n'


def write(path: Path, what: str) -> None:
    """Put a new file in the place of the old one."""
    fresh = path.with_name("." + secrets.token_hex(8))
    fresh.write_text(what)
    fresh.replace(path)


def made(folder: Path, forget: Callable[[], None] = lambda: None, **settings: object) -> CertificatesBackend:
    context = BackendContext(base_dir=folder, hash_pool=None, forget=forget)
    return CertificatesBackend.from_settings("certs", {"path": "certs", **settings}, context)


class TestCertificatesContract(BackendContract):
    """The contract of every backend."""

    async def make(self, context: BackendContext) -> Backend:
        folder = context.base_dir / "certs"
        folder.mkdir()
        write(folder / "ada.key", text(ADA, email="ada@example.org"))
        return CertificatesBackend.from_settings(
            "certs", {"path": "certs", "interval": "100ms", "max_age": "1s"}, context
        )

    def accepted(self) -> Question:
        return ask(key=ADA)

    def unknown(self) -> Question:
        return ask(key=EVE)

    def from_memory(self) -> Question:
        return ask(key=ADA)

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        (context.base_dir / "certs").rename(context.base_dir / "away")
        return True

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        (context.base_dir / "away").rename(context.base_dir / "certs")
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "certs"
    found.mkdir()
    write(found / "ada.key", text(ADA, name="Ada", email="ada@example.org"))
    return found


@pytest.fixture
async def certs(tmp_path: Path, folder: Path):
    backend = made(tmp_path)
    await backend.start()
    yield backend
    await backend.aclose()


async def outcome(backend: CertificatesBackend, key: bytes) -> Outcome:
    """What `check` says; what `recall` gives must agree."""
    verdict = await backend.check(ask(key=key))
    (recalled,) = backend.recall([key], "lab")
    assert (recalled is not None) == (verdict.outcome is Outcome.ACCEPT)
    return verdict.outcome


async def until(backend: CertificatesBackend, key: bytes, wanted: Outcome) -> None:
    async with asyncio.timeout(30):
        while await outcome(backend, key) is not wanted:
            await asyncio.sleep(0.02)


async def test_what_czmq_and_pyzmq_wrote_is_read(tmp_path: Path, folder: Path) -> None:
    """Files of the real libraries, names and metadata with quotes and comments in them; what zapd may not carry is
    left out and told once; secret halves are never opened, and told."""
    if shutil.which("gcc") is None or not Path("/usr/include/czmq.h").exists():
        (pytest.fail if os.environ.get("ZAPD_REQUIRE_COMPONENTS") else pytest.skip)("no gcc or czmq.h")
    (tmp_path / "zcert.c").write_text(CZMQ)
    subprocess.run(
        ["gcc", tmp_path / "zcert.c", "-o", tmp_path / "zcert", "-lczmq"], check=True, capture_output=True
    )
    subprocess.run([tmp_path / "zcert", folder / "countess.cert"], check=True, capture_output=True)
    zmq.auth.create_certificates(folder, "grace", {"name": "Grace"})
    (folder / "ada.key").unlink()
    backend = made(tmp_path)
    with capture_logs() as logs:
        await backend.start()
    try:
        found = {}
        for file in [each for each in folder.iterdir() if not each.name.endswith("_secret")]:
            key = decode_public_key(zmq.auth.load_certificate(file)[0].decode())
            verdict = await backend.check(ask(key=key))
            assert verdict.principal is not None
            (admission,) = backend.recall([key], "lab")
            assert card_of(admission or b"")[:2] == (
                verdict.principal.name.encode(),
                fingerprint(key).removeprefix("SHA256:").encode(),
            )
            found[verdict.principal.name] = dict(verdict.principal.attributes)
        assert found == {
            "countess": {"name": 'Ada "the first" # of them', "email": "ada@example.org"},
            "grace": {},  # pyzmq puts the metadata into the secret half alone
        }
        assert "2 files with secret keys" in backend.problem
        assert [line["names"] for line in logs if "left out" in line["event"]] == [["Zapd-Groups"]]
    finally:
        await backend.aclose()


@pytest.mark.parametrize(("user", "name"), [("file", "ada"), ("name", "Ada"), ("email", "ada@example.org")])
async def test_the_user_is_what_the_setting_says(tmp_path: Path, folder: Path, user: str, name: str) -> None:
    """The file's name, or a property of the metadata; a file without it is not used, and named."""
    write(folder / "bob.key", text(BOB))
    backend = made(tmp_path, user=user)
    await backend.start()
    verdict = await backend.check(ask(key=ADA))
    assert verdict.principal is not None
    assert verdict.principal.name == name
    assert (await backend.check(ask(key=BOB))).outcome is (
        Outcome.ACCEPT if user == "file" else Outcome.UNAVAILABLE
    )
    assert ("'bob.key' has no" in backend.problem) == (user != "file")
    await backend.aclose()


async def test_the_folder_is_watched(certs: CertificatesBackend, folder: Path) -> None:
    """A new file lets in, a removed one does not, one renamed over or written in place says something else, and
    nobody has to call."""
    write(folder / "bob.key", text(BOB))
    await until(certs, BOB, Outcome.ACCEPT)
    write(folder / "bob.key", text(EVE))
    await until(certs, EVE, Outcome.ACCEPT)
    assert await outcome(certs, BOB) is Outcome.UNKNOWN
    (folder / "bob.key").write_text(text(BOB))
    await until(certs, BOB, Outcome.ACCEPT)
    (folder / "ada.key").unlink()
    await until(certs, ADA, Outcome.UNKNOWN)
    assert await outcome(certs, BOB) is Outcome.ACCEPT


async def test_changes_are_announced(tmp_path: Path, folder: Path) -> None:
    """Remembered decisions are forgotten with each change, and with nothing else."""
    told: list[int] = []
    backend = made(tmp_path, lambda: told.append(1))
    await backend.start()
    before = len(told)
    await backend.refresh()
    assert len(told) == before
    (folder / "ada.key").unlink()
    write(folder / "bob.key", text(BOB))
    await until(backend, ADA, Outcome.UNKNOWN)
    assert len(told) > before
    await backend.aclose()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("", "holds no public-key"),
        (text(ADA)[:-9], "is not ZPL: half-written?"),
        (text(ADA).replace("curve", "curves"), "holds no public-key"),
        (text(ADA) + f'    public-key = "{encode_key(BOB)}"\n', "several public keys"),
        (text(ADA).replace(encode_key(ADA), "abc"), "public-key: "),
        (text(ADA, name="a", email="b").replace("email", "name"), "name is there already"),
        (text(ADA, note="x" * 5000), "4096"),
        ("#" * (MAX_FILE + 1), "longer than 64 KiB"),
    ],
    ids=lambda value: "",
)
async def test_a_broken_edit_keeps_what_was_good(
    certs: CertificatesBackend, folder: Path, broken: str, says: str
) -> None:
    """A file that cannot be used keeps what it last said, and is named until it is mended."""
    (folder / "ada.key").write_text(broken)
    async with asyncio.timeout(30):
        while says not in certs.problem:
            await certs.refresh()
            await asyncio.sleep(0.02)
    assert "'ada.key'" in certs.problem
    assert "stays in force" in certs.problem
    assert encode_key(ADA) not in certs.problem
    assert await outcome(certs, ADA) is Outcome.ACCEPT
    write(folder / "ada.key", text(ADA))
    async with asyncio.timeout(30):
        while certs.problem:
            await certs.refresh()
            await asyncio.sleep(0.02)


async def test_a_secret_among_them_is_refused_for_its_key(certs: CertificatesBackend, folder: Path) -> None:
    """A file that comes to hold a secret key lets nobody in, loudly, and the secret is never shown."""
    secret = encode_key(bytes(range(32)))
    with capture_logs() as logs:
        write(folder / "ada.key", text(ADA) + f'    secret-key = "{secret}"\n')
        await until(certs, ADA, Outcome.UNKNOWN)
    assert "'ada.key' holds a secret key" in certs.problem
    assert any("holds a secret key" in line.get("problem", "") for line in logs)
    assert secret not in repr(logs) + certs.problem
    with pytest.raises(HoldsSecret):
        parse_certificate((text(ADA) + "  secret-key=x").encode())


async def test_an_empty_folder_refuses_nobody_for_good(certs: CertificatesBackend, folder: Path) -> None:
    """A folder without any certificate looks as one that is not mounted: out, but "cannot tell", and told."""
    (folder / "ada.key").unlink()
    await until(certs, ADA, Outcome.UNAVAILABLE)
    assert await outcome(certs, EVE) is Outcome.UNAVAILABLE
    assert "holds no certificate" in certs.problem


async def test_a_new_file_may_take_its_time(certs: CertificatesBackend, folder: Path) -> None:
    """While a file is half-written, a key that nobody knows hears "not now": it may be in there."""
    (folder / "bob.key").write_text(text(BOB)[:40])
    await until(certs, BOB, Outcome.UNAVAILABLE)
    assert await outcome(certs, ADA) is Outcome.ACCEPT
    (folder / "bob.key").write_text(text(BOB))
    await until(certs, BOB, Outcome.ACCEPT)
    await until(certs, EVE, Outcome.UNKNOWN)


async def test_memory_is_believed_so_long_and_no_longer(tmp_path: Path, folder: Path) -> None:
    """A folder that is gone is lived through for ``max_age``; then nobody is let in, and nobody refused for good;
    when it is back, all is as before."""
    backend = made(tmp_path, interval="100ms", max_age="1s")
    await backend.start()
    folder.rename(tmp_path / "away")
    await until(backend, ADA, Outcome.UNAVAILABLE)
    assert await outcome(backend, EVE) is Outcome.UNAVAILABLE
    assert "No such file" in backend.problem
    (tmp_path / "away").rename(folder)
    await until(backend, ADA, Outcome.ACCEPT)
    await until(backend, EVE, Outcome.UNKNOWN)
    await backend.aclose()


async def test_a_folder_that_is_gone_does_not_start(tmp_path: Path) -> None:
    """Without its folder the backend says why; a file in its place is none."""
    backend = made(tmp_path)
    with pytest.raises(Unavailable, match="cannot be read"):
        await backend.start()
    (tmp_path / "certs").write_text("")
    with pytest.raises(Unavailable, match="not a folder"):
        await backend.start()
    await backend.aclose()


async def test_another_folder_in_its_place_is_the_folder(
    certs: CertificatesBackend, folder: Path, tmp_path: Path
) -> None:
    """A folder moved into the path is read whole, and watched from then on."""
    other = tmp_path / "other"
    other.mkdir()
    write(other / "ada.key", text(BOB))
    folder.rename(tmp_path / "old")
    other.rename(folder)
    await until(certs, BOB, Outcome.ACCEPT)
    await until(certs, ADA, Outcome.UNKNOWN)
    (folder / "ada.key").write_text(text(EVE))
    await until(certs, EVE, Outcome.ACCEPT)


async def test_a_key_in_two_files_stays_until_both_are_gone(certs: CertificatesBackend, folder: Path) -> None:
    """The first file by name says whose it is."""
    write(folder / "aaron.key", text(ADA))
    async with asyncio.timeout(30):
        while (await certs.check(ask(key=ADA))).principal.name != "aaron":
            await asyncio.sleep(0.02)
    write(folder / "zoe.key", text(BOB))
    (folder / "aaron.key").unlink()
    async with asyncio.timeout(30):
        while (await certs.check(ask(key=ADA))).principal.name != "ada":
            await asyncio.sleep(0.02)
    (folder / "ada.key").unlink()
    await until(certs, ADA, Outcome.UNKNOWN)


def test_pipes_folders_and_dangling_links_are_passed_over(folder: Path) -> None:
    """What is no file holds nobody up; a link is what it leads to; names that are no text are named safely."""
    os.mkfifo(folder / "pipe.key")
    (folder / "deeper").mkdir()
    (folder / "nowhere.key").symlink_to(folder / "no such file")
    (folder / "bob.key").symlink_to(folder / "ada.key")
    (folder / "old.key~").write_text(text(EVE))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.key")).write_text("")
    found = CertificateFolder(folder, lambda name, certificate: name.encode()).look(whole=True)
    assert found.put == {ADA: b"ada.key"}
    assert "dcff.key' holds no public-key" in found.problem


def test_the_folder_is_watched_without_the_kernels_word() -> None:
    """Where there is no inotify, as in a container that has used it up, looking again is enough: what the tests of
    watching say holds there as well. A namespace of its own has none to give."""
    quiet = (
        "echo 0 > /proc/sys/user/max_inotify_instances && "
        f"{sys.executable} -c 'import ctypes; raise SystemExit(ctypes.CDLL(None).inotify_init1(0) != -1)'"
    )
    try:
        subprocess.run(["unshare", "-Ur", "sh", "-c", quiet], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespace may be made here")
    watching = "folder_is_watched and not kernel or another_folder or two_files or take_its_time"
    run = f"{sys.executable} -m pytest -q -p no:cacheprovider -k '{watching}' {__file__}"
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", f"{quiet} && exec {run}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_look_costs_nothing_while_nothing_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of files neither a question nor a look lists or reads the folder again; one removed file is
    found with one listing, without reading the others."""
    keys = [public_of(hashlib.sha256(b"%d" % number).digest()) for number in range(1, 3001)]
    for number, key in enumerate(keys):
        (folder / f"{number}.key").write_text(text(key))
    past = os.stat(folder).st_mtime_ns - 10**9
    os.utime(folder, ns=(past, past))
    watched = CertificateFolder(folder, lambda name, certificate: name.encode())
    assert len(watched.look(whole=True).put) == 3001
    watched._next_sweep = float("inf")
    asked: list[str] = []
    scandir, opened = os.scandir, os.open
    monkeypatch.setattr(os, "scandir", lambda path: asked.append("list") or scandir(path))
    monkeypatch.setattr(os, "open", lambda path, *more: asked.append("read") or opened(path, *more))
    for _ in range(5):
        assert not watched.look().put
    assert asked == []
    (folder / "7.key").unlink()
    found = watched.look()
    assert found.gone == {keys[7]}
    assert asked == ["list"]


@pytest.mark.parametrize(
    "settings",
    [{"path": ""}, {"path": 3}, {"path": "a\0"}, {"interval": "1"}, {"interval": 1}, {"max_age": "1s"}, {"x": 1}],
)
def test_settings_are_checked(tmp_path: Path, settings: dict[str, object]) -> None:
    """Each wrong setting is a mistake of the configuration that names the backend."""
    with pytest.raises(ConfigurationError, match=r"backend\.certs"):
        made(tmp_path, **settings)


@pytest.mark.parametrize("size", range(0, 200, 7))
def test_a_file_cut_anywhere_is_the_whole_or_nothing(size: int) -> None:
    """No half of a file gives another key."""
    whole = text(ADA, name="Ada").encode()
    try:
        assert parse_certificate(whole[:size]).key == ADA
    except InvalidInput:
        assert size < len(whole)
