"""The passwd backend: the contract, the formats, and edits good and bad."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import bcrypt
import pytest
from passlib.hash import apr_md5_crypt, ldap_sha1, sha512_crypt
from structlog.testing import capture_logs
from zapd_backends.passwd import PasswdBackend

from zapd.auth.backend import Backend, BackendContext, Outcome
from zapd.auth.hash_kinds import new_hash
from zapd.auth.hashing import HashPool
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.testing import BackendContract, ask

ADA = new_hash(b"lovelace")
QUICK = bcrypt.hashpw(b"hopper", bcrypt.gensalt(4)).decode()


def write(path: Path, text: str) -> None:
    """Put a new file in the place of the old one, as careful editors do."""
    fresh = path.with_name(secrets.token_hex(8))
    fresh.write_text(text)
    fresh.chmod(0o640)
    fresh.replace(path)


class TestPasswdContract(BackendContract):
    """The contract of every backend."""

    async def make(self, context: BackendContext) -> Backend:
        write(context.base_dir / "users", f"# staff\nada:{ADA}\nbob:!{QUICK}\ngrace:{QUICK}\n")
        return PasswdBackend.from_settings("staff", {"path": "users"}, context)

    def accepted(self):
        return ask("ada", b"lovelace")

    def rejected(self):
        return ask("ada", b"byron")

    def unknown(self):
        return ask("eve", b"lovelace")

    def barred(self):
        return ask("bob", b"hopper")

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        (context.base_dir / "users").rename(context.base_dir / "away")
        assert isinstance(backend, PasswdBackend)
        await backend.refresh()
        return True

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        (context.base_dir / "away").rename(context.base_dir / "users")
        assert isinstance(backend, PasswdBackend)
        await backend.refresh()
        return True


class Staff:
    """A passwd backend with its file."""

    def __init__(self, folder: Path, pool: HashPool) -> None:
        self.path = folder / "users"
        self.forgotten = 0
        context = BackendContext(base_dir=folder, hash_pool=pool, forget=self.forget)
        self.backend = PasswdBackend.from_settings("staff", {"path": "users"}, context)

    def forget(self) -> None:
        self.forgotten += 1

    async def outcome(self, name: str, password: bytes) -> Outcome:
        return (await self.backend.check(ask(name, password))).outcome


@pytest.fixture
async def staff(tmp_path):
    pool = HashPool()
    staff = Staff(tmp_path, pool)
    write(staff.path, f"grace:{QUICK}\n")
    yield staff
    await staff.backend.aclose()
    await pool.aclose()


async def test_every_format_is_read(staff):
    """argon2id, bcrypt in each spelling, SHA-512-crypt and Apache's formats let the right password in alone."""
    hashes = {
        "argon2id": ADA,
        "bcrypt-b": bcrypt.hashpw(b"lovelace", bcrypt.gensalt(4)).decode(),
        "bcrypt-y": bcrypt.hashpw(b"lovelace", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
        "sha512": sha512_crypt.using(rounds=5000).hash("lovelace"),
        "sha512-rounds": sha512_crypt.using(rounds=1000).hash("lovelace"),
        "apr1": apr_md5_crypt.hash("lovelace"),
        "sha": ldap_sha1.hash("lovelace"),
    }
    write(staff.path, "".join(f"{name}:{stored}\n" for name, stored in hashes.items()))
    await staff.backend.start()
    for name in hashes:
        assert await staff.outcome(name, b"lovelace") is Outcome.ACCEPT, name
        assert await staff.outcome(name, b"Lovelace") is Outcome.REJECT, name


async def test_a_new_file_is_in_force_at_once(staff):
    """A renamed-over file replaces the users, and remembered decisions are forgotten."""
    await staff.backend.start()
    before = staff.forgotten
    write(staff.path, f"ken:{QUICK}\n")
    await staff.backend.refresh()
    assert await staff.outcome("grace", b"hopper") is Outcome.UNKNOWN
    assert await staff.outcome("ken", b"hopper") is Outcome.ACCEPT
    assert staff.forgotten > before


async def test_the_file_is_watched(staff):
    """Nobody has to call for a changed file to be read."""
    await staff.backend.start()
    write(staff.path, f"ken:{QUICK}\n")
    async with asyncio.timeout(20):
        while await staff.outcome("ken", b"hopper") is not Outcome.ACCEPT:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grace\n", "line 1: no hash"),
        ("a:$2b$04$short\n", "line 1: malformed bcrypt"),
        (f"# fine\ngrace:{QUICK}\nken:\n", "line 3: no hash"),
        (f"grace:{QUICK}\ngrace:{QUICK}\n", "line 2: the name is there already"),
        (f"grace:{QUICK}", "half-written"),
        ("", "half-written"),
        (f":{QUICK}\n", "line 1: a name has"),
        (f"gr\x1bace:{QUICK}\n", "line 1: a name has"),
        (f"grace:{QUICK}:0:99999\n", "line 1: more than name and hash"),
        ("grace:plain\n", "line 1: unknown kind"),
        ("grace:$1$salt$abcdefghijklmnopqrstuv\n", "line 1: unknown kind"),
        (f"grace:$2b$14${QUICK[7:]}\n", "line 1: this bcrypt hash is too dear"),
        ("x" * 2000 + "\n", "line 1: longer than"),
    ],
    ids=lambda value: "",  # the hashes differ in each process, and so must not be part of a test's name
)
async def test_a_broken_edit_keeps_what_was_good(staff, text, says):
    """A file that cannot be used changes nothing, and says which line is wrong without showing a hash."""
    await staff.backend.start()
    write(staff.path, text)
    with capture_logs() as logs:
        await staff.backend.refresh()
    assert await staff.outcome("grace", b"hopper") is Outcome.ACCEPT
    assert says in staff.backend.problem
    assert "stays in force" in staff.backend.problem
    assert any(says in line.get("problem", "") for line in logs)
    assert QUICK[7:] not in repr(logs) + staff.backend.problem
    write(staff.path, f"grace:{QUICK}\n")
    await staff.backend.refresh()
    assert staff.backend.problem == ""


async def test_a_broken_file_does_not_start(staff):
    """With a mistake in it from the beginning, the backend fails to start and names the lines."""
    write(staff.path, "ada\nbob:\n")
    with pytest.raises(InvalidInput, match=r"line 1: no hash.*line 2: no hash"):
        await staff.backend.start()


async def test_a_missing_file_is_trouble_not_refusal(staff):
    """A file that is gone answers "unavailable", and answers again once it is back."""
    await staff.backend.start()
    staff.path.unlink()
    await staff.backend.refresh()
    assert await staff.outcome("grace", b"hopper") is Outcome.UNAVAILABLE
    assert await staff.outcome("eve", b"hopper") is Outcome.UNAVAILABLE
    assert "No such file" in staff.backend.problem
    write(staff.path, f"grace:{QUICK}\n")
    await staff.backend.refresh()
    assert await staff.outcome("grace", b"hopper") is Outcome.ACCEPT


async def test_a_missing_file_does_not_start(staff):
    """Without its file the backend does not start, and says why."""
    staff.path.unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        await staff.backend.start()


async def test_a_folder_or_pipe_is_no_file(staff, tmp_path):
    """A folder or a pipe in the file's place is an error, not a hang."""
    staff.path.unlink()
    staff.path.mkdir()
    with pytest.raises(Unavailable):
        await staff.backend.start()
    staff.path.rmdir()
    os.mkfifo(staff.path)
    with pytest.raises(Unavailable, match="not a regular file"):
        await staff.backend.start()


async def test_a_file_that_all_can_read_is_used_with_a_warning(staff):
    """A world-readable file works, and the backend complains until it is mended."""
    staff.path.chmod(0o644)
    await staff.backend.start()
    assert "chmod o-r" in staff.backend.problem
    assert await staff.outcome("grace", b"hopper") is Outcome.ACCEPT


async def test_a_bar_without_a_hash_is_a_bar(staff):
    """``name:!`` and ``name:*`` bar a user who has no password."""
    write(staff.path, "bob:!\nsys:*\n")
    await staff.backend.start()
    assert await staff.outcome("bob", b"x") is Outcome.LOCKED
    assert await staff.outcome("sys", b"x") is Outcome.LOCKED


async def test_a_long_password_is_cut_as_bcrypt_cuts_it(staff):
    """bcrypt looks at 72 octets, and a longer password neither fails nor passes for another."""
    long = b"p" * 71 + b"qr"
    write(staff.path, f"ada:{bcrypt.hashpw(long[:72], bcrypt.gensalt(4)).decode()}\n")
    await staff.backend.start()
    assert await staff.outcome("ada", long) is Outcome.ACCEPT
    assert await staff.outcome("ada", b"p" * 73) is Outcome.REJECT


async def test_windows_line_ends_and_comments_are_read(staff):
    """Carriage returns, empty lines and comments do no harm."""
    write(staff.path, f"# x\r\n\r\ngrace:{QUICK}\r\n")
    await staff.backend.start()
    assert await staff.outcome("grace", b"hopper") is Outcome.ACCEPT


@pytest.mark.parametrize("settings", [{}, {"path": ""}, {"path": 3}, {"path": "a", "file": "b"}, {"path": "a\0b"}])
def test_settings_are_checked(settings, tmp_path):
    """Each wrong setting is a mistake of the configuration that names the backend."""
    with pytest.raises(ConfigurationError, match=r"backend\.staff"):
        PasswdBackend.from_settings("staff", settings, BackendContext(tmp_path, hash_pool=None))


async def test_an_unreadable_file_is_trouble(staff):
    """Where permissions say no, the answer is "unavailable"."""
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    staff.path.chmod(0)
    with pytest.raises(Unavailable):
        await staff.backend.start()
