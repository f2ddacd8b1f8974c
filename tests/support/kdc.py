"""A real MIT Kerberos realm for tests: a plain process with its own folder, database and port; no root needed.

Imported by the test files that need it (``from support.kdc import kdc, make_kdc``). Skips where krb5-kdc or the
library gssapi is not installed, unless ``ZAPD_REQUIRE_COMPONENTS`` makes that a failure. A process under test gets
`Kdc.environment`, from `Kdc.ticket` also with a credential cache; `libzmq_with_gssapi` has its pyzmq speak GSSAPI.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from support.daemon import Daemon

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
TOOLS = ("krb5kdc", "kadmin.local", "kdb5_util", "kinit")

REALM = "ZAPD.TEST"
SERVICE = "zmq/localhost"
"""The principal of a service; its key is in `Kdc.keytab`."""
HOST_BASED = "zmq@localhost"
"""The same as GSSAPI names it (ZMQ_GSSAPI_SERVICE_PRINCIPAL)."""

# One TCP connection a question, so that a proxy can stand in between; names of one label are taken as they are.
CLIENT = """
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 qualify_shortname = ""
 rdns = false
 udp_preference_limit = 1
[realms]
 {realm} = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = {realm}
"""

SERVER = """
[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 {realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
  supported_enctypes = aes256-cts-hmac-sha1-96:normal
  default_principal_flags = +preauth
 }}
[logging]
 kdc = FILE:{folder}/kdc.log
 admin_server = FILE:{folder}/kadmin.log
"""


class Kdc(Daemon):
    """One realm."""

    def __init__(self, folder: Path, realm: str = REALM) -> None:
        self.folder, self.realm = folder, realm
        self.port = _free_port()
        self.config = self.write_config("krb5.conf", self.port)
        """What a client is told."""
        self.keytab = folder / "service.keytab"
        (folder / "kdc.conf").write_text(SERVER.format(realm=realm, port=self.port, folder=folder))
        self._numbers = count(1)
        self._run("kdb5_util", "create", "-s", "-r", realm, "-P", "master-Vx4k")

    @property
    def environment(self) -> dict[str, str]:
        """For a process of this realm: clients, and services with the key of `keytab`. No credential cache."""
        return {
            "KRB5_CONFIG": str(self.config),
            "KRB5_KTNAME": f"FILE:{self.keytab}",
            "KRB5RCACHENAME": "none:",
            "KRB5CCNAME": f"FILE:{self.folder / 'nobody.cache'}",
        }

    def write_config(self, name: str, port: int, more: str = "") -> Path:
        """A krb5.conf by which the KDC is at another port: a proxy's."""
        path = self.folder / name
        path.write_text(CLIENT.format(realm=self.realm, port=port) + more)
        return path

    def start(self, **environment: str) -> None:
        """Serve."""
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(
                ["krb5kdc", "-n", "-r", self.realm],
                env=self._environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
        for _ in range(1000):
            if self.process.poll() is not None:
                raise RuntimeError(self.log())
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError(self.log())

    def log(self) -> str:
        """What the KDC wrote."""
        paths = [self.folder / name for name in ("kdc.log", "out")]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def admin(self, *queries: str) -> str:
        """kadmin.local, query by query."""
        return "".join(self._run("kadmin.local", "-r", self.realm, "-q", query) for query in queries)

    def add(self, principal: str, password: str | None = None, *options: str) -> None:
        """Add a principal; without a password with a random key."""
        key = "-randkey" if password is None else f"-pw {password}"
        said = self.admin(f"addprinc {' '.join(options)} {key} {principal}")
        assert "created" in said, said

    def ensure(self, principal: str, *options: str) -> None:
        """`add`, where another test has not done it."""
        if "does not exist" in self.admin(f"getprinc {principal}"):
            self.add(principal, *options)

    def write_keytab(self, path: Path, *principals: str) -> Path:
        """Put the keys of principals into a file; without new ones, so that passwords stay as they are."""
        self.admin(*(f"ktadd -norandkey -k {path} {principal}" for principal in principals))
        path.chmod(0o600)
        return path

    def ticket(self, principal: str, password: str | None = None) -> dict[str, str]:
        """Sign in as somebody: the environment of a client that holds the ticket. Without a password by key."""
        number = next(self._numbers)
        mine = {**self.environment, "KRB5CCNAME": f"FILE:{self.folder / f'{number}.cache'}"}
        words = ["kinit", principal]
        if password is None:
            words[1:1] = ["-k", "-t", str(self.write_keytab(self.folder / f"{number}.keytab", principal))]
        self._run(*words, given="" if password is None else f"{password}\n", **mine)
        return mine

    def _environment(self, **more: str) -> dict[str, str]:
        profile = {"KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"), "PATH": PATH, "LC_ALL": "C.UTF-8"}
        return {**os.environ, **self.environment, **profile, **more}

    def _run(self, *words: str, given: str = "", **environment: str) -> str:
        done = subprocess.run(
            words, env=self._environment(**environment), input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def libzmq_with_gssapi() -> dict[str, str]:
    """The environment in which pyzmq runs on Debian's libzmq, which speaks GSSAPI; its wheel's does not."""
    found = sorted(glob.glob("/usr/lib/*/libzmq.so.5") + glob.glob("/usr/lib/libzmq.so.5"))
    if not found:
        _miss("libzmq5 is not installed (apt-get install libzmq5)")
    return {"LD_PRELOAD": found[0]}


def at_another_time(offset: str) -> dict[str, str]:
    """The environment of a process whose clock is off, by ``+1h`` say."""
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        _miss("libfaketime is not installed (apt-get install libfaketime)")
    return {"LD_PRELOAD": found[0], "FAKETIME": offset}


KdcMaker = Callable[..., Kdc]


@pytest.fixture
def make_kdc() -> Iterator[KdcMaker]:
    """Makes a realm of the test's own and starts it; `SERVICE` is in it: ``make_kdc("OTHER.TEST")``."""
    yield from _maker()


@pytest.fixture(scope="session")
def kdc() -> Iterator[Kdc]:
    """One realm for all tests that change nothing in it but add principals of their own; it knows `SERVICE` and
    ``alice`` with the password ``alice-Pw1``."""
    maker = _maker()
    made = next(maker)()
    made.add("alice", "alice-Pw1")
    yield made
    next(maker, None)


def _maker() -> Iterator[KdcMaker]:
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        _miss(f"{', '.join(missing)} not installed (apt-get install krb5-kdc krb5-admin-server krb5-user)")
    if importlib.util.find_spec("gssapi") is None:
        _miss("the library gssapi is not installed (apt-get install libkrb5-dev, then make test)")
    made: list[Kdc] = []

    def make(realm: str = REALM) -> Kdc:
        server = Kdc(Path(tempfile.mkdtemp(prefix="zapd-kdc-")), realm)
        made.append(server)
        server.add(SERVICE, None, "-requires_preauth")
        server.write_keytab(server.keytab, SERVICE)
        server.start()
        return server

    yield make
    for server in made:
        server.stop(signal.SIGKILL)
        shutil.rmtree(server.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _miss(reason: str) -> None:
    if os.environ.get("ZAPD_REQUIRE_COMPONENTS"):
        pytest.fail(reason)
    pytest.skip(reason)
