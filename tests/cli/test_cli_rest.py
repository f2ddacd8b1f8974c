"""Commands that ask the server: against the real API over a real registry."""

import json
import secrets
import stat
from pathlib import Path

import pytest
from support.cli_server import Served, run

from zapd.agent.keyfile import read_keys
from zapd.cli.client import own_url
from zapd.config import load, read_curve_pair
from zapd.store.engine import open_engine, writing
from zapd.store.sightings import Bounds, Sighting, SightingRegistry
from zapd.store.types import now
from zapd.zmtp.keys import decode_public_key, encode_key, fingerprint, generate_keypair


def new_key(first: str = "") -> tuple[str, str]:
    """(a public key that begins with ``first``, its fingerprint)."""
    while True:
        public_key, _ = generate_keypair()
        if encode_key(public_key).startswith(first):
            return encode_key(public_key), fingerprint(public_key)


def new_name(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(4)}"


def knock(served: Served, key: str) -> None:
    """Let a stranger's key be seen at the door."""
    config = load(served.config)
    engine = open_engine(config.database_url(), config.base_dir)
    moment, address = now(), "192.0.2.7"
    seen = Sighting(decode_public_key(key), "default", "default", address, address, "edge", moment, moment, 1)
    with writing(engine) as connection:
        SightingRegistry().note(connection, [seen], Bounds())
    engine.dispose()


def test_a_key_lives_its_life(served: Served) -> None:
    """add, list, show and revoke, by public key and by fingerprint; without --domain the only one is taken."""
    key, print_of = new_key()
    user = new_name("alice")
    added = served.json(
        "key", "add", key, "--user", user, "--group", "traders", "--attr", "Desk=7", "--label", "laptop"
    )
    assert added["fingerprint"] == print_of
    assert (added["state"], added["domains"], added["attributes"]) == ("active", ["default"], {"Desk": "7"})
    table = served.run("key", "list", "--user", user).stdout
    assert table.splitlines()[0].split() == [
        "USER", "STATE", "FINGERPRINT", "DOMAINS", "GROUPS", "EXPIRES", "LABEL",
    ]  # fmt: skip
    assert print_of in table
    assert served.json("key", "show", print_of) == served.json("key", "show", key)
    revoked = served.json("key", "revoke", key, "--reason", "left the team", "--yes")
    assert (revoked["state"], revoked["reason"]) == ("revoked", "left the team")
    assert [each["state"] for each in served.json("key", "list", "--user", user)] == ["revoked"]
    assert served.json("key", "list", "--user", user, "--state", "active") == []
    assert "no such keys" in served.run("key", "list", "--user", "nobody").stdout


def test_pending_keys_are_approved_or_rejected(served: Served) -> None:
    """--pending holds a key; approve and reject decide."""
    for verb, state in (("approve", "active"), ("reject", "revoked")):
        key, _ = new_key()
        assert served.json("key", "add", key, "--user", "bob", "--pending")["state"] == "pending"
        assert served.json("key", verb, key)["state"] == state


def test_a_stranger_named_by_its_whole_key_is_approved(served: Served) -> None:
    """Though nothing lists it; its fingerprint alone says the mend; filters of strangers need --state pending."""
    for first in ("", "-"):
        key, mark = new_key(first)
        assert "whole public key" in served.run("key", "approve", mark, "--user", "zoe", code=1).stderr
        made = served.json("key", "approve", key, "--user", "zoe", "--group", "g", "--label", "hers")
        assert (made["state"], made["fingerprint"], made["groups"]) == ("active", mark, ["g"])
        assert served.json("key", "reject", new_key(first)[0], "--yes")["user"] == "rejected"
    assert "--state pending" in served.run("key", "list", "--agent", "edge", code=2).stderr
    key, _ = new_key()
    served.run("key", "add", key, "--user", "ute", "--pending")
    assert "ute" in served.run("key", "list", "--state", "pending").stdout


def test_keys_that_look_like_options_are_keys(served: Served) -> None:
    """One key in 85 begins with a hyphen, and is taken wherever it stands."""
    key, print_of = new_key("-")
    assert served.json("key", "add", "--user", "carol", key)["fingerprint"] == print_of
    assert served.json("key", "show", key)["fingerprint"] == print_of
    assert "is 40 characters of Z85, not 41" in served.run("key", "show", key + "x", code=2).stderr


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("a" * 39, "a CURVE public key is 40 characters of Z85, not 39"),
        ("a" * 41, "a CURVE public key is 40 characters of Z85, not 41"),
        ("a" * 39 + "~", "character 40 of this CURVE public key, '~', is not one of Z85"),
        ("ab" * 32, "this looks like hex"),
        ("#" * 40, "exceed 32 bits"),
        ("0" * 40, "small order"),
        (" " + "a" * 40, "white space around it"),
    ],
)
def test_what_is_no_key_is_told_before_anything_is_asked(key: str, told: str) -> None:
    """39 or 41 characters, characters outside Z85, other alphabets: exit code 2 and the rule that was broken."""
    refused = run("key", "add", key, "--user", "alice", environment={"ZAPD_URL": "http://127.0.0.1:1"}, code=2)
    assert told in refused.stderr
    assert key not in refused.stderr.replace(f"'{key[-1]}'", "")


def test_several_domains_must_be_named(served: Served) -> None:
    """Without --domain it is an error that says so; named ones, and '*', are taken."""
    served.domains[:] = ["orders", "metrics.*"]
    for words in (["key", "add", new_key()[0], "--user", "dora"], ["user", "add", new_name("dora")]):
        refused = served.run(*words, text="secret\n", code=1).stderr
        assert "Say which domains" in refused
        assert "'*'" in refused
        made = served.json(*words, "--domain", "orders", "--domain", "metrics.*", text="secret\n")
        assert made["domains"] == ["metrics.*", "orders"]
    assert served.json("key", "add", new_key()[0], "--user", "dora", "--domain", "*")["domains"] == ["*"]


def test_a_key_that_is_there_already_is_refused(served: Served) -> None:
    """The server's words arrive as one sentence, with exit code 1."""
    key, _ = new_key()
    served.run("key", "add", key, "--user", "alice")
    refused = served.run("key", "add", key, "--user", "mallory", code=1).stderr
    assert refused.startswith("zapd: ")
    assert refused.count("\n") == 1
    assert "no key" in served.run("key", "show", new_key()[0], code=1).stderr.lower()


def test_times_are_spans_or_dates(served: Served) -> None:
    """--expires takes 90d and dates; nonsense and the past are refused."""
    for when in ("90d", "2199-01-31", "2199-01-31T12:00:00+01:00"):
        assert served.json("key", "add", new_key()[0], "--user", "eve", "--expires", when)["expires"]
    assert (
        "is no time" in served.run("key", "add", new_key()[0], "--user", "eve", "--expires", "soon", code=2).stderr
    )
    assert (
        "past" in served.run("key", "add", new_key()[0], "--user", "eve", "--expires", "2001-01-01", code=1).stderr
    )


def test_a_user_lives_his_life(served: Served) -> None:
    """add, passwd, disable, enable and rm; the password comes from standard input and is shown nowhere."""
    name = new_name("bob/with a slash")
    for words in (["add"], ["passwd"]):
        printed = served.run("user", *words, name, text="correct horse\n")
        assert "correct horse" not in printed.stdout + printed.stderr
    assert name in served.run("user", "list").stdout
    assert served.json("user", "disable", name)["state"] == "disabled"
    assert name in [each["name"] for each in served.json("user", "list", "--state", "disabled")]
    assert served.json("user", "enable", name)["state"] == "enabled"
    served.run("user", "rm", name, "--yes")
    assert name not in [each["name"] for each in served.json("user", "list")]
    assert "No password came" in served.run("user", "add", name, text="", code=2).stderr


def test_lists_follow_every_page(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the pages are, a list is whole; --limit ends it early."""
    monkeypatch.setattr("zapd.cli.client.PAGE", 2)
    user = new_name("many")
    for _ in range(5):
        served.run("key", "add", new_key()[0], "--user", user)
    assert len(served.json("key", "list", "--user", user)) == 5
    assert len(served.json("key", "list", "--user", user, "--limit", "3")) == 3


def test_an_agent_is_enrolled_into_one_file(served: Served, tmp_path: Path) -> None:
    """The file is what the agent reads; its secret is printed nowhere, and the server never had it."""
    name, path = new_name("edge"), tmp_path / "agent.key"
    printed = served.run("agent", "enroll", name, "-o", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = read_keys(path)
    server_key, _ = read_curve_pair(load(served.config).curve_key_file)
    assert keys.name == name
    # The endpoint on every interface is reached as the API was.
    assert [(each.address, each.server_keys) for each in keys.endpoints] == [
        ("tcp://127.0.0.1:9027", (server_key,))
    ]
    assert encode_key(keys.secret_key) not in printed.stdout + printed.stderr
    listed = served.json("agent", "show", name)
    assert listed["public_key"] == encode_key(keys.public_key)
    assert listed["domains"] == ["default"]
    assert name in served.run("agent", "list").stdout
    assert served.json("agent", "revoke", name, "--yes")["state"] == "revoked"


def test_an_agent_may_be_told_another_way(served: Served, tmp_path: Path) -> None:
    """--endpoint, --mechanism and --from say how it reaches zapd and what it may ask."""
    name, path = new_name("edge"), tmp_path / "agent.key"
    made = served.json(
        "agent", "enroll", name, "-o", str(path), "--endpoint", "tcp://zapd.example.org:9027",
        "--mechanism", "CURVE", "--from", "10.0.0.0/8", "--domain", "*",
    )  # fmt: skip
    assert (made["mechanisms"], made["addresses"], made["domains"]) == (["CURVE"], ["10.0.0.0/8"], ["*"])
    assert [each.address for each in read_keys(path).endpoints] == ["tcp://zapd.example.org:9027"]


def test_the_empty_domain_is_seen_in_lists(served: Served, tmp_path: Path) -> None:
    """Its name is written as "", so that a grant of it is not taken for none."""
    name = new_name("edge")
    served.run("agent", "enroll", name, "-o", str(tmp_path / "agent.key"), "--domain", "", "--domain", "*")
    shown = [line.split(maxsplit=1) for line in served.run("agent", "show", name).stdout.splitlines()]
    assert ["domains", '"", *'] in shown


def test_a_refused_enrolment_leaves_no_file(served: Served, tmp_path: Path) -> None:
    """What the server refuses makes no file; a file that exists, or an endpoint that is none, enrols nobody."""
    name, path = new_name("edge"), tmp_path / "agent.key"
    served.run("agent", "enroll", name, "-o", str(path))
    before = path.read_text()
    served.run("agent", "enroll", name, "-o", str(tmp_path / "second.key"), code=1)
    other = new_name("edge")
    assert "exists already" in served.run("agent", "enroll", other, "-o", str(path), code=1).stderr
    served.run("agent", "show", other, code=1)
    second = str(tmp_path / "second.key")
    told = served.run("agent", "enroll", other, "-o", second, "--endpoint", "nowhere", code=2)
    assert "write tcp://host:port" in told.stderr
    served.run("agent", "show", other, code=1)
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["agent.key"]


def test_names_with_anything_in_them_make_a_good_file(served: Served, tmp_path: Path) -> None:
    """Quotes, backslashes and other letters survive the way into the key file."""
    name = new_name('édge "x" \\ y')
    served.run("agent", "enroll", name, "-o", str(tmp_path / "agent.key"))
    assert read_keys(tmp_path / "agent.key").name == name


def test_a_token_is_shown_once_and_ends_at_once(served: Served, tmp_path: Path) -> None:
    """A viewer's token reads and does not change; revoked it does neither."""
    made = served.json("token", "create", "--role", "viewer", "--name", "eye", "--expires", "1d")
    assert made["token"] not in served.run("token", "list").stdout
    as_viewer = {"ZAPD_TOKEN": made["token"]}
    run("key", "list", config=served.config, environment=as_viewer)
    refused = run("key", "add", new_key()[0], "--user", "x", config=served.config, environment=as_viewer, code=1)
    assert "viewer" in refused.stderr
    served.run("token", "revoke", made["id"])
    gone = run("key", "list", config=served.config, environment=as_viewer, code=1).stderr
    assert "ZAPD_TOKEN" in gone
    assert made["token"] not in gone


def test_a_join_token_is_shown_once_listed_and_revoked(served: Served) -> None:
    """All that it grants is said by options; the list says how many uses are left, and never the token."""
    made = served.json(
        *("join", "create", "--user", "robot", "--group", "fleet", "--attr", "Desk=7", "--from", "10.0.0.0/8"),
        *(
            "--uses",
            "3",
            "--expires",
            "2h",
            "--key-lifetime",
            "90d",
            "--hint",
            "server_key=abc",
            "--label",
            "hall 3",
        ),
    )
    assert made["token"].startswith("zapdj_")
    assert (made["user"], made["domains"], made["key_lifetime"]) == ("robot", ["default"], 90 * 86400)
    assert (made["attributes"], made["addresses"], made["hints"]) == (
        {"Desk": "7"},
        ["10.0.0.0/8"],
        {"server_key": "abc"},
    )
    plain = served.run("join", "create", "--domain", "*").stdout
    assert "zapdj_" in plain
    listed = served.run("join", "list").stdout
    assert "USES LEFT" in listed
    assert "zapdj_" not in listed + str(served.json("join", "list"))
    assert served.json("join", "revoke", made["id"], "--yes")["id"] == made["id"]
    (gone,) = [each for each in served.json("join", "list") if each["id"] == made["id"]]
    assert gone["revoked"]
    assert (
        "--hint a is there twice" in served.run("join", "create", "--hint", "a=1", "--hint", "a=2", code=2).stderr
    )
    assert "no join token" in served.run("join", "revoke", "nonsense", code=1).stderr


def test_the_server_is_found_by_flags_then_environment_then_configuration(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--url and --token-file go before ZAPD_URL and ZAPD_TOKEN, those before the configuration's."""
    monkeypatch.chdir(tmp_path)
    token = (served.folder / "admin.token").read_text().strip()
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    wrong = {"ZAPD_URL": "http://127.0.0.1:1", "ZAPD_TOKEN": "wrong"}
    run("key", "list", "--url", served.url, "--token-file", str(file), environment=wrong)
    run("key", "list", "--url", served.url, "--token-file", "-", environment=wrong, text=token + "\n")
    run("key", "list", environment={"ZAPD_URL": served.url, "ZAPD_TOKEN": token})
    run("--url", served.url, "--token-file", str(file), "key", "list")
    file.chmod(0o644)
    assert "chmod 600" in run("key", "list", "--url", served.url, "--token-file", str(file), code=2).stderr
    assert own_url(load(served.config)) == served.url


def test_a_token_goes_nowhere_it_does_not_belong(served: Served) -> None:
    """Not over plain HTTP beyond this machine, and admin.token to no other server than its own."""
    token = (served.folder / "admin.token").read_text().strip()
    plain = run("key", "list", "--url", "http://192.0.2.1:8027", environment={"ZAPD_TOKEN": token}, code=2)
    assert "https only" in plain.stderr
    other = run("key", "list", "--url", "https://192.0.2.1:8027", config=served.config, code=2)
    assert "not sent to" in other.stderr
    for url in ("ftp://x", "nonsense", "https://user:pw@x"):
        run("key", "list", "--url", url, config=served.config, code=2)


def test_a_server_that_is_not_there_is_one_sentence(made: Path) -> None:
    """Nothing listens: exit code 1 and the question whether zapd serve runs."""
    environment = {"ZAPD_URL": "http://127.0.0.1:1", "ZAPD_TOKEN": "x"}
    refused = run("key", "list", environment=environment, code=1).stderr
    assert "is `zapd serve` running?" in refused
    assert "Traceback" not in refused


def test_what_the_configuration_made_is_listed(served: Served) -> None:
    """domain list and backend list, with why a backend is disabled."""
    assert "default" in served.run("domain", "list").stdout
    shown = served.run("backend", "list").stdout
    assert "the database is away" in shown
    assert "\x07" not in shown
    assert served.json("backend", "list")[0]["state"] == "disabled"


def test_the_record_is_searched(served: Served) -> None:
    """audit list asks with its filters, follows pages, and lets no control character through."""
    assert len(served.json("audit", "list")) == 7
    assert {each["status"] for each in served.json("audit", "list", "--status", "400")} == {400}
    shown = served.run("audit", "list", "--user", "alice", "--limit", "2").stdout
    assert shown.count("auth.accept") == 2
    for words in ([], ["--json"]):
        raw = served.run("audit", "list", *words).stdout
        assert "\x1b" not in raw
        assert "\\x1b[31m" in raw or "\\u001b[31m" in raw
    served.searched.clear()
    key, print_of = new_key()
    served.run("audit", "list", "--key", key, "--since", "12h", "--address", "192.0.2.7", "--domain", "default")
    assert served.searched[0].key == print_of
    assert served.searched[0].since is not None


def test_explain_shows_each_step(served: Served) -> None:
    """What would be decided, and every rule and backend with its verdict."""
    question = ["explain", "--domain", "default", "--mechanism", "CURVE", "--address", "192.0.2.7"]
    shown = served.run(*question, "--key", new_key()[0]).stdout
    assert "400" in shown
    assert "unknown_key" in shown
    assert "backend keys" in shown
    assert served.json(*question, "--key", new_key()[0])["steps"][0]["step"] == "domain"
    assert "CURVE needs --key" in served.run(*question, code=2).stderr


def test_explain_takes_a_fingerprint_for_the_key(served: Served) -> None:
    """In either form, of a key that is registered or waits; one that nobody knows, or is none, says the mend."""
    question = ["explain", "--domain", "default", "--mechanism", "CURVE", "--address", "192.0.2.7", "--key"]
    registered, registered_print = new_key()
    served.run("key", "add", registered, "--user", new_name("alice"))
    held, held_print = new_key()
    served.run("key", "add", held, "--user", new_name("bob"), "--pending")
    stranger, stranger_print = new_key()
    knock(served, stranger)
    names = [
        registered_print,
        registered_print[7:].replace("+", "-").replace("/", "_"),
        held_print,
        stranger_print,
    ]
    for name in names:
        served.run(*question, name)
    keys = [registered, registered, held, stranger]
    assert [encode_key(each.key) for each in served.explained] == keys
    unknown = served.run(*question, new_key()[1], code=1).stderr
    assert "registered" in unknown
    assert "whole public key" in unknown
    assert "fingerprint" in served.run(*question, "SHA256:short", code=2).stderr
    assert len(served.explained) == len(keys)


def test_explain_takes_an_agents_fingerprint_and_says_what_it_is(served: Served, tmp_path: Path) -> None:
    """Decided is the client who would come with it, as with the whole key; whose it is stands on standard error.
    Of the key before a rotation only the fingerprint is known."""
    question = ["explain", "--domain", "default", "--mechanism", "CURVE", "--address", "192.0.2.7", "--key"]
    name = new_name("edge")
    served.run("agent", "enroll", name, "-o", str(tmp_path / "first.key"))
    first = served.json("agent", "show", name)
    told = served.run(*question, first["fingerprint"])
    assert f"agent {name}" in told.stderr
    assert "a client's it is only where a backend says so" in told.stderr
    assert "unknown_key" in told.stdout
    assert served.json(*question, first["id"])["status"] == 400
    served.run("agent", "rotate", name, "-o", str(tmp_path / "second.key"))
    former = served.run(*question, first["fingerprint"], code=1).stderr
    assert f"agent {name} before its last" in former
    assert "whole public key" in former
    second = served.json("agent", "show", name)
    served.run(*question, second["fingerprint"])
    keys = [first["public_key"], first["public_key"], second["public_key"]]
    assert [encode_key(each.key) for each in served.explained] == keys


def test_json_is_json_whatever_is_in_it(served: Served) -> None:
    """Names with line separators and bidi marks leave as escapes that readers undo."""
    user = new_name("zoë")
    key, _ = new_key()
    served.run("key", "add", key, "--user", user, "--label", "naïve — ☃")
    raw = served.run("key", "show", key, "--json").stdout
    assert json.loads(raw)["label"] == "naïve — ☃"
    assert "☃" in raw


def test_a_ban_lives_its_life(served: Served) -> None:
    """add, list and rm, of each kind; a key by itself or by its fingerprint."""
    key, mark = new_key("-")
    user = new_name("eve")
    by_key = served.json("ban", "add", f"--key={key}", "--reason", "lost")
    assert by_key["key"] == mark
    by_user = served.json("ban", "add", "--user", user, "--expires", "12h", "--domain", "default")
    assert (by_user["user"], by_user["domains"], by_user["state"]) == (user, ["default"], "in_force")
    served.json("ban", "add", "--address", f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.0/24")
    table = served.run("ban", "list", "--kind", "user").stdout
    assert table.splitlines()[0].split() == ["ID", "STATE", "WHAT", "DOMAINS", "ENDS", "REASON", "MADE", "BY"]
    assert f"user {user}" in table
    assert mark in served.run("ban", "list").stdout
    assert "taken back" in served.run("ban", "rm", by_user["id"], "--yes").stdout
    assert user not in served.run("ban", "list").stdout
    assert served.run("ban", "rm", by_user["id"], code=1).stderr
    assert "one of" in served.run("ban", "add", code=2).stderr
    assert "one of" in served.run("ban", "add", "--user", "a", "--address", "10.0.0.1", code=2).stderr
