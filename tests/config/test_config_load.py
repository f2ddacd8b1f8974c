"""Reading a configuration: what it gives, and how it says what is wrong."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from zapd.auth.gate import Keeping
from zapd.config import BackendSection, Config, InvalidConfiguration, load
from zapd.errors import ConfigurationError

GOOD = """\
[server]
data_dir = "data"
[database]
url = "sqlite:///data/zapd.db"
[[zap]]
listen = "tcp://127.0.0.1:9027"
mechanism = "CURVE"
[backend.keys]
type = "sql"
[domain.orders]
mechanisms = ["CURVE"]
backends = ["keys"]
"""

_TWO = '[backend.k]\ntype = "sql"\n[backend.l]\ntype = "sql"\n'

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "zapd.toml"
        path.write_text(dedent(text))
        return path

    return _write


def mistakes(path: Path) -> list[str]:
    """What is wrong with a file, as it is shown."""
    with pytest.raises(InvalidConfiguration) as caught:
        load(path)
    return [str(mistake) for mistake in caught.value.mistakes]


def warnings(path: Path) -> list[str]:
    return [str(warning) for warning in load(path).warnings]


def test_every_setting_of_the_documentation_is_read(write: Write, tmp_path: Path) -> None:
    """A file that uses most settings arrives as typed data: seconds, octets, absolute paths."""
    secret = tmp_path / "bind.secret"
    secret.write_text("hush\n")
    secret.chmod(0o600)
    config = load(
        write("""\
        [server]
        data_dir = "data"
        drain = "100ms"
        [database]
        url = "sqlite:///data/zapd.db"
        max_staleness = "5m"
        [[zap]]
        listen = "tcp://127.0.0.1:9027"
        [[zap]]
        listen = "ipc://data/zap.sock"
        mechanism = "NULL"
        domains = ["default"]
        mode = "0660"
        users = [0, "root"]
        [admin]
        listen = "127.0.0.1:8027"
        [audit]
        durability = "strict"
        flush_interval = "100ms"
        max_size = "20GB"
        retention = "400d"
        [backend.keys]
        type = "sql"
        [backend.staff]
        type = "passwd"
        path = "file:bind.secret"
        [domain.orders]
        mechanisms = ["CURVE"]
        backends = ["keys", { backend = "staff", on_unavailable = "next" }]
        allow = ["10.0.0.0/8", "ipc:gid=100"]
        deny = ["10.9.0.0/16"]
        unknown_keys = "pending"
        [domain."metrics.*"]
        mechanisms = ["PLAIN"]
        backends = ["staff"]
        deadline = "500ms"
        backend_deadline = "400ms"
        [domain.lab]
        mechanisms = ["NULL"]
        allow = ["192.0.2.0/24"]
        null_user = "lab"
        [limits]
        handshakes_total = 2000
        frame_size = "2MiB"
        """)
    )
    assert config.server.drain == 0.1
    assert config.database.max_staleness == 300
    assert config.server.data_dir == tmp_path / "data"
    assert config.database_url() == f"sqlite:///{tmp_path}/data/zapd.db"
    assert [str(address) for address in config.addresses()] == [
        "tcp://127.0.0.1:9027",
        f"ipc://{tmp_path}/data/zap.sock",
    ]
    assert config.zap[1].permissions == 0o660
    assert config.zap[1].uids() == {0}
    assert config.audit.max_size == 20_000_000_000
    assert config.audit.retention == 400 * 86400
    assert config.limits.frame_size == 2 << 20
    assert config.curve_key_file == tmp_path / "data" / "server.key"
    assert repr(config.backend["staff"].settings) == "{'path': ***}"
    assert config.backend["staff"].revealed_settings() == {"path": "hush"}
    assert "hush" not in repr(config)
    rules = {rule.pattern: rule for rule in config.rules()}
    assert [link.on_unavailable for link in rules["orders"].backends] == ["stop", "next"]
    assert (rules["orders"].deadline, rules["metrics.*"].deadline) == (1.0, 0.5)
    assert rules["lab"].null_user == "lab"


def test_an_almost_empty_file_has_the_defaults(write: Write, tmp_path: Path) -> None:
    """Without [[zap]] and [admin] zapd is on loopback, with CURVE."""
    config = load(write("[server]\n"))
    assert [(each.listen, each.mechanism) for each in config.zap] == [("tcp://127.0.0.1:9027", "CURVE")]
    assert config.admin.listen == "127.0.0.1:8027"
    assert config.server.data_dir == tmp_path / "data"
    assert config.database_url() == f"sqlite:///{tmp_path}/data/zapd.db"
    assert [str(each) for each in config.warnings] == [
        "line 1: domain: there is no domain: every question is refused until there is a [domain.NAME]"
    ]


def test_every_mistake_is_told_at_once_with_its_line(write: Write) -> None:
    """Wrong shapes, unknown settings and broken rules stand side by side, in the order of the file."""
    found = mistakes(
        write("""\
        [server]
        data_dri = "data"
        drain = 5
        [[zap]]
        listen = "tcp://0.0.0.0:9027"
        mechanism = "PLAIN"
        domains = ["orders"]
        [[zap]]
        mechanism = "CURVE"
        [admin]
        listen = "0.0.0.0:8027"
        [backend.keys]
        type = "sqll"
        [domain.orders]
        mechanisms = ["CURVE", "KERBEROS"]
        backends = ["kess"]
        allow = ["10.1.0.0/8"]
        [limits]
        plan_deadline = "3s"
        """)
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["line 2", "server.data_dri"],
        ["line 3", "server.drain"],
        ["line 6", "zap[1].mechanism"],
        ["line 8", "zap[2].listen"],
        ["line 11", "admin.listen"],
        ["line 13", "backend.keys.type"],
        ["line 15", "domain.orders.mechanisms[2]"],
        ["line 16", "domain.orders.backends"],
        ["line 17", "domain.orders.allow"],
        ["line 19", "limits.plan_deadline"],
    ]
    assert "did you mean 'data_dir'?" in found[0]
    assert '"5s"' in found[1]
    assert "did you mean 'sql'?" in found[5]
    assert "did you mean 'keys'?" in found[7]
    assert "write 10.0.0.0/8" in found[8]


def test_the_error_is_a_configuration_error_and_names_the_file(write: Write) -> None:
    """Whoever knows only ConfigurationError gets file, line, setting, problem and mend in its text."""
    path = write("[servr]\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: line 1: servr: unknown setting: did you mean 'server'?"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[server]\nworkers = \n", 2, "not TOML: Invalid value at column 11"),
        ('[server]\ndata_dir = "da', 2, "not TOML"),
        ("[server]\nworkers = 1\n[server]\n", 3, "not TOML"),
        ("[audit\n", 1, "not TOML"),
    ],
)
def test_a_half_edited_file_is_refused_with_its_line(write: Write, text: str, line: int, words: str) -> None:
    """A file that is no TOML is one mistake, with the line at which reading ended."""
    (found,) = mistakes(write(text))
    assert found.startswith(f"line {line}: ")
    assert words in found


def test_files_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    """No file, a folder, and octets that are no text each have their words."""
    assert "there is no such file" in mistakes(tmp_path / "none.toml")[0]
    assert "cannot be read" in mistakes(tmp_path)[0]
    (tmp_path / "latin").write_bytes(b"[server]\n# caf\xe9\n")
    assert mistakes(tmp_path / "latin") == ["line 2: not UTF-8 text: save the file as UTF-8"]


@pytest.mark.parametrize(
    "listen", ["tcp://*:9027", "tcp://0.0.0.0:9027", "tcp://[::]:9027", "tcp://192.0.2.1:9027"]
)
@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN"])
def test_an_open_endpoint_must_be_curve(write: Write, listen: str, mechanism: str) -> None:
    """R9: NULL and PLAIN are refused wherever others can reach them, and nothing overrides that."""
    endpoint = f'[[zap]]\nlisten = "{listen}"\nmechanism = "{{}}"\n{{}}'
    (found,) = mistakes(write(endpoint.format(mechanism, 'domains = ["x"]\n')))
    assert found.startswith("line 3: zap[1].mechanism: ")
    assert "CURVE" in found
    load(write(endpoint.format("CURVE", "")))


@pytest.mark.parametrize(
    "listen", ["tcp://127.0.0.1:9027", "tcp://[::1]:9027", "tcp://localhost:9027", "ipc://zap.sock"]
)
def test_null_and_plain_are_for_loopback_and_ipc(write: Write, listen: str) -> None:
    """On loopback and ipc they are allowed, once the endpoint says what it may be asked about."""
    text = f'[[zap]]\nlisten = "{listen}"\nmechanism = "NULL"\n'
    assert "line 1: zap[1]: a NULL endpoint does not say what it may be asked about" in mistakes(write(text))[0]
    load(write(text + 'domains = ["default"]\n'))


@pytest.mark.parametrize(
    ("admin", "words"),
    [
        ('listen = "0.0.0.0:8027"', "add tls_cert and tls_key, or behind_proxy = true"),
        ('listen = "8027"', "no HOST:PORT"),
        ('tls_cert = "a.pem"', "needs tls_key beside it"),
        ('trusted_proxies = ["10.0.0.0/8"]', "without behind_proxy"),
        ('behind_proxy = true\ntrusted_proxies = ["ten"]', "no network"),
        ('behind_proxy = "yes"', "write true or false"),
        ('listen = "127.0.0.1:9027"', "listens there already"),
    ],
)
def test_the_admin_api_is_never_open_in_the_clear(write: Write, admin: str, words: str) -> None:
    """Beyond loopback it must have TLS or a proxy that does it, and its settings must fit together."""
    assert any(words in found for found in mistakes(write(f"[admin]\n{admin}\n")))


def test_the_admin_api_may_be_open_behind_a_proxy(write: Write) -> None:
    """behind_proxy says that somebody else does TLS."""
    load(write('[admin]\nlisten = "0.0.0.0:8027"\nbehind_proxy = true\n'))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ('backend_deadline = "1100ms"', "backend_deadline (1100ms) must be at most plan_deadline (1s)"),
        ('plan_deadline = "2s"', "plan_deadline (2s) must be less than agent_deadline (2s)"),
        ('agent_deadline = "5s"', "agent_deadline (5s) must be less than handshake_deadline (5s)"),
        ('hold_min = "6s"', "hold_min (6s) must be at most hold_max (5s)"),
        ('stalled = "0s"', "a bound of nothing"),
        ("handshakes_total = 0", "write at least 1"),
        ('frame_size = "100B"', "at least 255B"),
        ("frame_size = 100", "not a size"),
        ('plan_deadline = "1 fortnight"', "not a time"),
        ('plan_deadline = "999999d"', "longer than a century"),
    ],
)
def test_times_and_bounds_keep_their_order(write: Write, limits: str, words: str) -> None:
    """backend ≤ plan < agent < handshake, and no bound may be nothing."""
    assert any(words in found for found in mistakes(write(f"[limits]\n{limits}\n")))


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ('[domain."zapd.agents"]\nmechanisms = ["CURVE"]\nbackends = ["keys"]', "reserved for zapd's own door"),
        ('[domain."a*b"]\nmechanisms = ["CURVE"]\nbackends = ["keys"]', "'*' stands at the end only"),
        ('[domain.x]\nmechanisms = ["NULL"]', "explicit allow list"),
        ('[domain.x]\nmechanisms = ["CURVE"]', "no backend is named"),
        ("[domain.x]\nmechanisms = []", "name at least one"),
        ("[domain.x]\n", "domain.x.mechanisms: is missing"),
        ('[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["other"]', "there is no [backend.other]"),
        ('[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["keys", "keys"]', "twice in its chain"),
        ('[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\ngrace = "2d"', "grace is at most 24 h"),
        ('[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\nbackend_deadline = "2s"', "within the plan's"),
        ('[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\ndeny = ["ipc:pid=1"]', "no address rule"),
        ('[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\nalow = []', "did you mean 'allow'?"),
        (
            '[domain.x]\nmechanisms = ["CURVE"]\nbackends = [{ backend = "keys", on_locked = "next" }]',
            "on_locked: nothing may follow that answer: remove it: who is barred",
        ),
        (
            '[domain.x]\nmechanisms = ["CURVE"]\nbackends = [{ backend = "keys", on_reject = "ask" }]',
            "on_reject: not one of the choices: write 'stop' or 'next'",
        ),
        (
            '[domain.x]\nmechanisms = ["CURVE"]\nbackends = [{ backend = "keys", on_rejct = "next" }]',
            "did you mean 'on_reject'?",
        ),
    ],
)
def test_domains_that_cannot_be_meant_are_refused(write: Write, domain: str, words: str) -> None:
    """Everything that deciding would refuse at start is found here, at its line, and only once."""
    (found,) = mistakes(write('[backend.keys]\ntype = "sql"\n' + domain + "\n"))
    assert words in found
    assert not found.startswith("line 1:")


def test_what_follows_from_a_mistake_is_not_a_second_one(write: Write) -> None:
    """A misspelt allow list is one mistake, not also a NULL domain without one."""
    found = mistakes(write('[domain.x]\nmechanisms = ["NULL"]\nalow = ["10.0.0.0/8"]\n'))
    assert found == ["line 3: domain.x.alow: unknown setting: did you mean 'allow'?"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('deadline = "0s"', "deadline: is nothing"),
        ('deadline = "900ms"', "is longer than a domain gives it (800ms)"),
        ("deadline = 1", "not a time"),
        ("max_in_flight = 0", "write at least 1"),
        ("circuit_failures = -1", "write at least 0"),
        ('circuit_pause = "2m"', "longer than 1m"),
        ('cache_good = "2h"', "longer than 1h"),
        ('stale_if_error = "2d"', "longer than 1d"),
    ],
)
def test_a_backend_cannot_be_kept_without_bounds(write: Write, setting: str, words: str) -> None:
    """zapd's own settings of a backend have bounds, and a mistake in one is named with its line."""
    domain = '[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\n'
    (found,) = mistakes(write(f'{domain}[backend.keys]\ntype = "sql"\n{setting}\n'))
    assert found.startswith("line 6: backend.keys.")
    assert words in found


def test_a_backend_is_kept_as_its_table_says(write: Write) -> None:
    """What is zapd's own never reaches the plugin; a domain may give a backend more time than the default."""
    config = load(
        write("""
        [backend.keys]
        type = "sql"
        deadline = "1500ms"
        max_in_flight = 3
        circuit_failures = 0
        circuit_pause = "250ms"
        cache_good = "1m"
        cache_bad = "0s"
        stale_if_error = "5m"
        [domain.x]
        mechanisms = ["CURVE"]
        backends = ["keys"]
        deadline = "1900ms"
        backend_deadline = "1800ms"
        """)
    )
    assert config.backend["keys"].settings == {}
    assert config.backend["keys"].keeping == Keeping(1.5, 3, 0, 0.25, 60.0, 0.0, 300.0)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ('listen = "ipc://z.sock"\nmechanism = "NULL"\ndomains = ["x"]\nmode = "rw"', "no mode"),
        (
            'listen = "ipc://z.sock"\nmechanism = "NULL"\ndomains = ["x"]\nusers = ["nobody-here"]',
            "does not know it",
        ),
        ('listen = "tcp://127.0.0.1:1"\nmode = "0600"', "for ipc endpoints only"),
        ('listen = "tcp://localhost.example:1"', "listens on a name"),
        ('listen = "udp://127.0.0.1:1"', "write tcp://host:port or ipc://path"),
        ('listen = "tcp://127.0.0.1:1"\ndomains = ["x"]', "CURVE endpoint has no domains"),
        ('listen = "tcp://127.0.0.1:1"\nmechanisms = ["GSSAPI"]', "CURVE endpoint has no mechanisms"),
        ('listen = "ipc://z.sock"\nmechanism = "NULL"\ndomains = ["zapd.agents"]', "reserved"),
        ('listen = "tcp://127.0.0.1:1"\nmechanism = "GSSAPI"', "'NULL', 'PLAIN' or 'CURVE'"),
        ("listen = 1", "not a text"),
    ],
)
def test_endpoints_that_cannot_be_meant_are_refused(write: Write, endpoint: str, words: str) -> None:
    """Settings of an endpoint must fit its transport and mechanism."""
    (found,) = mistakes(write(f"[[zap]]\n{endpoint}\n"))
    assert words in found


def test_a_table_where_an_array_of_tables_belongs(write: Write) -> None:
    """[zap] instead of [[zap]] says which brackets to write."""
    (found,) = mistakes(write('[zap]\nlisten = "tcp://127.0.0.1:1"\n'))
    assert "write [[zap]], with two brackets" in found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[backend.staff]\ntype = "passwd"\n', 'line 1: backend.staff: set path = "…"'),
        (
            '[backend.staff]\ntype = "passwd"\npath = "x"\nfile = "y"\n',
            "line 4: backend.staff.file: unknown setting",
        ),
        (
            '[backend.keys]\ntype = "sql"\nurl = "x"\n',
            "line 3: backend.keys.url: has settings that sql does not know",
        ),
        ('[database]\nurl = "sqlite://"\n', "line 2: database.url: The SQLite URL must name a file"),
        ('[database]\nurl = "mysql://x/y"\n', "line 2: database.url: names neither SQLite nor PostgreSQL"),
    ],
)
def test_plugins_are_asked_about_their_settings(write: Write, text: str, told: str) -> None:
    """What a backend or the database's driver would refuse at start is found here; nothing is opened."""
    (found,) = mistakes(write(text))
    assert found.startswith(told)
    with contextlib.suppress(InvalidConfiguration):
        load(write(text), check_files=False)


@pytest.mark.parametrize(
    ("mechanisms", "keytab", "warned"),
    [
        ('["GSSAPI"]', "", False),
        ('["GSSAPI", "PLAIN"]', "", True),
        ('["GSSAPI", "PLAIN"]', 'keytab = "zapd.keytab"', False),
    ],
)
def test_a_mechanism_that_no_backend_answers_is_warned_of(
    write: Write, mechanisms: str, keytab: str, warned: bool
) -> None:
    """It is allowed in the domain, and would never be granted there."""
    backend = f'[backend.realm]\ntype = "kerberos"\nrealm = "EXAMPLE.ORG"\n{keytab}\n'
    domain = f'[domain.lab]\nmechanisms = {mechanisms}\nbackends = ["realm"]\n'
    told = "domain.lab.backends: none of them answers PLAIN"
    warnings = [str(each) for each in load(write(backend + domain)).warnings]
    assert any(told in each for each in warnings) is warned


@pytest.mark.parametrize(
    ("listen", "mechanisms", "backends", "warned"),
    [
        ("tcp://*:9027", '["NULL"]', '["peers"]', True),
        ("tcp://192.0.2.7:9027", '["NULL", "CURVE"]', '["keys", "peers"]', True),
        ("tcp://127.0.0.1:9027", '["NULL"]', '["peers"]', False),
        ("ipc://zap.sock", '["NULL"]', '["peers"]', False),
        ("tcp://*:9027", '["NULL", "CURVE"]', '["keys"]', False),
        ("tcp://*:9027", '["CURVE"]', '["keys", "peers"]', False),
        ("tcp://*:", '["NULL"]', '["peers"]', False),
    ],
)
def test_this_machines_users_on_the_word_of_other_machines_are_warned_of(
    write: Write, listen: str, mechanisms: str, backends: str, warned: bool
) -> None:
    """A backend that answers NULL goes by the address alone, and an agent elsewhere says it of its own machine: by
    default every agent may ask under NULL."""
    path = write(
        f'[[zap]]\nlisten = "{listen}"\nmechanism = "CURVE"\n'
        '[backend.keys]\ntype = "sql"\n[backend.peers]\ntype = "local"\n'
        f'[domain.desk]\nmechanisms = {mechanisms}\nallow = ["ipc"]\nbackends = {backends}\n'
    )
    try:
        found = load(path).warnings
    except InvalidConfiguration as error:  # an endpoint that is nowhere
        found = error.warnings
    told = [each for each in found if "word of agents" in each.problem]
    assert [(each.setting, each.line) for each in told] == ([("domain.desk.backends", 11)] if warned else [])
    assert all("--mechanism" in each.mend for each in told)


def test_two_endpoints_on_one_address_are_refused(write: Write) -> None:
    """The second one is the mistake; port 0 is a new port each time."""
    (found,) = mistakes(write('[[zap]]\nlisten = "tcp://127.0.0.1:1"\n' * 2))
    assert found.startswith("line 4: zap[2].listen: ")
    load(write('[[zap]]\nlisten = "tcp://127.0.0.1:0"\n' * 2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[audit]\ndurability = "relaxed"\n', "up to 100ms of records may be lost"),
        ('[audit]\ndurability = "off"\n', "nothing is recorded"),
        ('[audit]\nhead = ""\n', "cut off unnoticed"),
        ('[database]\nurl = "postgresql+psycopg://zapd:hush@db/zapd"\n', "a password stands in this file"),
        ('[backend.spare]\ntype = "sql"\n', "no domain asks it"),
        (
            '[domain.x]\nmechanisms = ["CURVE"]\nbackends = ["k"]\ngrace = "1h"\n[backend.k]\ntype = "sql"\n',
            "for 1h",
        ),
        (
            '[domain.x]\nmechanisms = ["CURVE"]\nbackends = [{ backend = "k", on_reject = "next" }, "l"]\n' + _TWO,
            "has the wrong proof may be let in by the next",
        ),
        (
            '[domain.x]\nmechanisms = ["CURVE"]\nbackends = [{ backend = "k", on_unknown = "stop" }, "l"]\n'
            + _TWO,
            "nobody behind it is ever asked",
        ),
        ('[backend.k]\ntype = "sql"\nstale_if_error = "1h"\n', "whoever was revoked there is let in for 1h"),
        ('[backend.k]\ntype = "sql"\ncircuit_pause = "5s"\n', "write at most 1s"),
        (
            '[[zap]]\nlisten = "ipc://z"\nmechanism = "NULL"\ndomains = ["x"]\nmode = "0666"\n',
            "every user of this machine",
        ),
    ],
)
def test_what_is_unwise_is_a_warning(write: Write, text: str, words: str) -> None:
    """Allowed and unwise: the configuration is used, and says so. No secret is in the words."""
    found = warnings(write(text))
    assert any(words in each for each in found)
    assert not any("hush" in each for each in found)


@pytest.mark.parametrize(
    ("unknown_keys", "chain", "warned"),
    [
        ("pending", '["certs"]', True),
        ("pending", '[{ backend = "certs", on_unknown = "stop", on_unavailable = "next" }, "keys"]', True),
        ("pending", '["certs", "keys"]', False),
        ("pending", '["absent"]', False),
        ("pending", "[]", False),
        ("refuse", '["certs"]', False),
    ],
)
def test_keys_held_where_nobody_could_approve_them_are_warned_of(
    write: Write, unknown_keys: str, chain: str, warned: bool
) -> None:
    """An approved key is in the registry: without a backend that asks it, an unknown key waits for ever."""
    path = write(
        '[backend.certs]\ntype = "certificates"\npath = "certs"\n[backend.keys]\ntype = "sql"\n'
        f'[domain.x]\nmechanisms = ["CURVE"]\nbackends = {chain}\nunknown_keys = "{unknown_keys}"\n'
    )
    try:
        found = load(path).warnings
    except InvalidConfiguration as error:  # no backend, or one that is not there
        found = error.warnings
    told = [each for each in found if each.setting == "domain.x.unknown_keys"]
    assert bool(told) is warned
    for each in told:
        assert each.line == 9
        assert "never be let in" in each.problem
        assert "sql" in each.mend


def test_more_workers_than_cores_are_unwise(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take turns, each with a registry of its own in memory."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 1, 2})
    assert not any("cores" in each for each in warnings(write("[server]\nworkers = 3\n")))
    assert any("has 3 cores" in each for each in warnings(write("[server]\nworkers = 4\n")))


def test_a_journal_that_nobody_signs_is_unwise(write: Write, tmp_path: Path) -> None:
    """No key in a data_dir is warned of, with the command; one that is named and missing is a mistake."""
    rest = '[domain.lab]\nmechanisms = ["NULL"]\nallow = ["ipc"]\nnull_user = "lab"\n'
    assert warnings(write(rest)) == []
    (tmp_path / "data").mkdir()
    (told,) = warnings(write(rest))
    assert "checkpoints go unsigned" in told
    assert f"zapd keygen --format journal -o {tmp_path}/data/journal.key" in told
    assert not any("unsigned" in each for each in warnings(write('[audit]\ndurability = "off"\n' + rest)))
    named = '[audit]\nsigning_key = "elsewhere.key"\n' + rest
    (mistake,) = mistakes(write(named))
    assert mistake.startswith("line 2: audit.signing_key: there is no ")
    (tmp_path / "elsewhere.key").touch()
    assert warnings(write(named)) == []


def test_a_backend_shows_nothing_of_its_settings(write: Write) -> None:
    """Settings of a plugin that stand in the clear are warned of by name, and shown by no repr."""
    text = '[backend.x]\ntype = "nowhere"\nbind_password = "hush"\n'
    text += '[domain.x]\nmechanisms = ["PLAIN"]\nbackends = ["x"]\n'
    with pytest.raises(InvalidConfiguration) as caught:
        load(write(text))
    assert [str(each) for each in caught.value.warnings] == [
        "line 3: backend.x.bind_password: a secret stands in this file: "
        'move it into a file of mode 0600: bind_password = "file:PATH"'
    ]
    assert "hush" not in repr(BackendSection(type="ldap", bind_password="hush"))


def test_the_example_configuration_is_good() -> None:
    """deploy/zapd.toml is refused nowhere and unwise nowhere."""
    config = load(Path(__file__).parents[2] / "deploy" / "zapd.toml")
    assert isinstance(config, Config)
    assert config.warnings == ()
