"""A real OpenLDAP server for tests: a plain process with its own folder, configuration and ports.

Imported by the test files that need it (``from support.slapd import ...``). Skips where slapd is not installed,
unless ``ZAPD_REQUIRE_COMPONENTS`` makes that a failure. Runs as whoever runs the tests, root included.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from zapd_backends.ldap_driver import ldap3

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
SUFFIX = "dc=example,dc=org"
ADMIN, ADMIN_PASSWORD = f"cn=admin,{SUFFIX}", "admin-Hb7w"
SERVICE, SERVICE_PASSWORD = f"cn=zapd,{SUFFIX}", "service-Qx3k"

KEY = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
"""Alice's public key (RFC 32's test key)."""
HONEYPOT = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"
"""The key of a robot."""

SCHEMA = """
attributetype ( 1.3.6.1.4.1.99999.1.1 NAME 'zmqCurvePublicKey'
  EQUALITY caseExactIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{40} )
attributetype ( 1.3.6.1.4.1.99999.1.2 NAME 'zmqDomain'
  EQUALITY caseExactIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
objectclass ( 1.3.6.1.4.1.99999.2.1 NAME 'zmqPeer' SUP top AUXILIARY MAY ( zmqCurvePublicKey $ zmqDomain ) )
"""

CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include {folder}/zmq.schema
pidfile {folder}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
allow bind_anon_dn
sizelimit {size_limit}
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
database mdb
maxsize 268435456
suffix "{suffix}"
rootdn "{admin}"
rootpw {password}
directory {folder}/db
dbnosync
index objectClass,uid,cn,member,zmqCurvePublicKey eq
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous {anonymous}
overlay memberof
memberof-dangling ignore
overlay ppolicy
ppolicy_default "cn=default,ou=policies,{suffix}"
ppolicy_use_lockout
"""
# "allow bind_anon_dn" makes it say yes to a name and an empty password, as careless directories do.

BASE = f"""
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: ou=policies,{SUFFIX}
objectClass: organizationalUnit
ou: policies

dn: cn=default,ou=policies,{SUFFIX}
objectClass: device
objectClass: pwdPolicy
cn: default
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 100

dn: cn=strict,ou=policies,{SUFFIX}
objectClass: device
objectClass: pwdPolicy
cn: strict
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 3
pwdLockoutDuration: 600

dn: cn=brief,ou=policies,{SUFFIX}
objectClass: device
objectClass: pwdPolicy
cn: brief
pwdAttribute: userPassword
pwdMaxAge: 1

dn: {SERVICE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: zapd
userPassword: {SERVICE_PASSWORD}

dn: ou=people,{SUFFIX}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{SUFFIX}
objectClass: organizationalUnit
ou: groups
"""


def person(name: str, password: str, *lines: str) -> str:
    """An entry of ``ou=people``, as LDIF."""
    return "\n".join(
        [
            f"dn: uid={name},ou=people,{SUFFIX}",
            "objectClass: inetOrgPerson",
            "objectClass: zmqPeer",
            f"uid: {name}",
            f"cn: {name}",
            f"sn: {name}",
            *([f"userPassword: {password}"] if password else []),
            *lines,
            "",
            "",
        ]
    )


def group(name: str, *members: str) -> str:
    """An entry of ``ou=groups``: members are people's names, or DNs."""
    dns = [each if "=" in each else f"uid={each},ou=people,{SUFFIX}" for each in members]
    lines = [f"dn: cn={name},ou=groups,{SUFFIX}", "objectClass: groupOfNames", f"cn: {name}"]
    return "\n".join([*lines, *(f"member: {dn}" for dn in dns), "", ""])


class Certificates:
    """A certificate authority, and one certificate of its making."""

    def __init__(self, folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        (folder / "names").write_text(f"subjectAltName={names}\n")
        self._openssl(f"req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=zapd-test-ca")
        self._openssl(f"req {key} -keyout server.key -out server.csr -subj /CN=localhost")
        signed_by = "-CA ca.pem -CAkey ca.key -CAcreateserial"
        self._openssl(f"x509 -req -in server.csr {signed_by} -days 2 -extfile names -out server.pem")

    def _openssl(self, words: str) -> None:
        subprocess.run(["openssl", *words.split()], check=True, capture_output=True, cwd=self.folder)


class Slapd(Daemon):
    """One server. Its ports stay the same when it is stopped and started again."""

    def __init__(
        self, folder: Path, certificates: Certificates, *, anonymous: str = "none", size_limit: str = "500"
    ) -> None:
        """``anonymous``: what nobody in particular may do; ``auth`` binds, ``read`` searches."""
        self.folder = folder
        self.ca = certificates.ca
        self.port, self.tls_port = _free_ports(2)
        (folder / "db").mkdir()
        for name in ("ca.pem", "server.pem", "server.key"):
            shutil.copy(certificates.folder / name, folder / name)
        (folder / "zmq.schema").write_text(SCHEMA)
        (folder / "slapd.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                suffix=SUFFIX,
                admin=ADMIN,
                password=ADMIN_PASSWORD,
                anonymous=anonymous,
                size_limit=size_limit,
            )
        )

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://localhost:{self.tls_port}"

    def load(self, ldif: str) -> None:
        """Fill the database while the server is not running. Overlays see nothing of it."""
        (self.folder / "load.ldif").write_text(ldif)
        self._run("slapadd", "-q", "-f", "slapd.conf", "-l", "load.ldif")

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["slapd", "-d", "0", "-f", "slapd.conf", "-h", f"{self.url}/ ldaps://127.0.0.1:{self.tls_port}/"],
                cwd=self.folder,
                env={**os.environ, "PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(1000):
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text(errors="replace"))
            try:
                for port in (self.port, self.tls_port):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError((self.folder / "log").read_text(errors="replace"))

    def change(self, work: Callable[[ldap3.Connection], object]) -> None:
        """Let ``work`` change something as the administrator."""
        server = ldap3.Server("127.0.0.1", self.port, get_info=ldap3.NONE)
        connection = ldap3.Connection(server, ADMIN, ADMIN_PASSWORD, auto_bind=True, raise_exceptions=True)
        try:
            work(connection)
        finally:
            connection.unbind()

    def put(self, dn: str, changes: dict[str, list[tuple[str, list[str]]]]) -> None:
        self.change(lambda connection: connection.modify(dn, changes))

    def set(self, name: str, attribute: str, *values: str) -> None:
        """Give somebody of ``ou=people`` these values of an attribute."""
        self.put(f"uid={name},ou=people,{SUFFIX}", {attribute: [(ldap3.MODIFY_REPLACE, list(values))]})

    def add(self, ldif: str) -> None:
        """Add entries over LDAP, so that overlays see them."""
        for block in ldif.strip().split("\n\n"):
            first, *lines = block.splitlines()
            attributes: dict[str, list[str]] = {}
            for line in lines:
                name, value = line.split(": ", 1)
                attributes.setdefault(name, []).append(value)
            dn = first.removeprefix("dn: ")
            self.change(lambda connection, dn=dn, attributes=attributes: connection.add(dn, None, attributes))

    def _run(self, *words: str) -> None:
        environment = {**os.environ, "PATH": PATH}
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="session")
def slapd_certificates() -> Iterator[Certificates]:
    """Skips where there is no slapd."""
    missing = [tool for tool in ("slapd", "slapadd", "openssl") if shutil.which(tool, path=PATH) is None]
    if missing:
        reason = f"{', '.join(missing)} not installed (apt-get install slapd openssl)"
        if os.environ.get("ZAPD_REQUIRE_COMPONENTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="zapd-ca-"))
    yield Certificates(folder)
    shutil.rmtree(folder)


SlapdMaker = Callable[..., Slapd]


@pytest.fixture
def make_slapd(slapd_certificates: Certificates) -> Iterator[SlapdMaker]:
    """Makes a server of the test's own, loaded and started: ``make_slapd(person("ada", "pw"), ...)``."""
    yield from _maker(slapd_certificates)


def _maker(certificates: Certificates) -> Iterator[SlapdMaker]:
    made: list[Slapd] = []

    def make(
        *ldif: str, online: Iterable[str] = (), certificates: Certificates = certificates, **options: str
    ) -> Slapd:
        folder = Path(tempfile.mkdtemp(prefix="zapd-slapd-"))
        server = Slapd(folder, certificates, **options)
        made.append(server)
        server.load(BASE + "\n" + "".join(ldif))
        server.start()
        for each in online:
            server.add(each)
        return server

    yield make
    for server in made:
        server.stop(signal.SIGKILL)
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slapd(slapd_certificates: Certificates) -> Iterator[Slapd]:
    """One server for all tests that change nothing in it, with a few people and groups."""
    maker = _maker(slapd_certificates)
    yield next(maker)(PEOPLE, online=[GROUPS])
    next(maker, None)


PEOPLE = "".join(
    [
        person("alice", "alice-Pw1", f"zmqCurvePublicKey: {KEY}", "mail: a@example.org", "l: Berlin", "l: Paris"),
        person("bob", "bob-Pw1", "pwdAccountLockedTime: 000001010000Z"),
        person("carol", "carol-Pw1", "employeeType: retired"),
        person("dora", ""),
        person("r2", "r2-Pw1", f"zmqCurvePublicKey: {HONEYPOT}", "zmqDomain: robots"),
        person("w*ld", "wild-Pw1"),
        person("(paren)", "paren-Pw1"),
    ]
)
GROUPS = "".join(
    [
        group("operators", "alice", "carol"),
        group("staff", f"cn=operators,ou=groups,{SUFFIX}", "r2"),
        group("company", f"cn=staff,ou=groups,{SUFFIX}", f"cn=company,ou=groups,{SUFFIX}"),
    ]
)
