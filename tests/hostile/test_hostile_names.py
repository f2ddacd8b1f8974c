"""Names that break lines, terminals, markup and spreadsheets: one record is one line, and nothing obeys them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator

import httpx
import pytest
from support.hostile_scene import PASSWORD, Scene, status_of
from support.hostile_wire import Ended, Stranger, question, wait_for

from zapd.zmtp.keys import encode_key, generate_keypair
from zapd.zmtp.mechanisms.plain import PlainClient

pytestmark = pytest.mark.xdist_group("hostile-names")
"""One worker, one zapd."""

UNPRINTABLE = (
    "a\rb", "a\nb", "a\r\n{}", "\x1b[2J\x1b[1;1H", "\x1b]0;title\x07", "a\0b", "a\x7f", "a\x85b", "\u202egnp.exe",
    "a\u2066b\u2069", "a\u2028b", "a\u2029b", "\ufeffbob", "b\u200bob", "b\u00adob", "\x9b31m", "tab\there",
    "\ue000",
)  # fmt: skip
"""Refused wherever a name may be set, and harmless where somebody only tries one."""

PRINTABLE = (
    "=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "[red]x[/red]", "<script>alert(1)</script>", "%s%n%(x)s{0}",
    "${jndi:ldap://x}",
    "../../etc/passwd", "'; DROP TABLE keys;--", '","status":200,"x":"', "name\\nline", "\\u001b[2J",
    "ünïcödé", "日本", "x" * 255,
)  # fmt: skip
"""Legal names: kept octet for octet, and never obeyed."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-names"))
    try:
        yield scene
        scene.is_well()
    finally:
        scene.zapd.stop()


def harmless(text: str) -> bool:
    """No character that a terminal may obey, and none that turns the line's direction."""
    return all(each == "\n" or not unicodedata.category(each).startswith("C") for each in text)


def test_no_name_that_breaks_a_line_can_be_set(scene: Scene) -> None:
    """Users, keys, labels, groups, attributes, agents, domains, tokens, reasons: refused with 422 each."""
    public = encode_key(generate_keypair()[0])
    key = {"public_key": public, "user": "x", "domains": ["orders"]}
    user = {"name": "x", "password": "long enough", "domains": ["staff"]}
    agent = {"name": "x", "public_key": public, "domains": ["orders"]}
    head = {"Authorization": f"Bearer {scene.zapd.token}"}
    with httpx.Client(base_url=scene.zapd.admin, headers=head, timeout=20) as client:
        for text in UNPRINTABLE:
            for path, body in (
                ("/v1/keys", key | {"user": text}),
                ("/v1/keys", key | {"label": text}),
                ("/v1/keys", key | {"groups": [text]}),
                ("/v1/keys", key | {"attributes": {text: "x"}}),
                ("/v1/keys", key | {"attributes": {"Desk": text}}),
                ("/v1/keys", key | {"domains": [text]}),
                ("/v1/users", user | {"name": text}),
                ("/v1/users", user | {"groups": [text]}),
                ("/v1/agents", agent | {"name": text}),
                ("/v1/agents", agent | {"domains": [text]}),
                ("/v1/agents", agent | {"addresses": [text]}),
                ("/v1/tokens", {"name": text, "role": "viewer"}),
                (f"/v1/keys/{scene.ids[scene.alice]}/revoke", {"reason": text}),
            ):
                assert client.post(path, json=body).status_code == 422, (path, body)
    assert scene.zapd.ask("GET", "/v1/agents")["items"] == []


def test_whoever_tries_such_a_name_gets_one_harmless_record(scene: Scene) -> None:
    """As a user at the door and in a question, as a domain, as an address: refused, each line of the journal one
    whole record, and the log and the metrics page stay printable."""
    with scene.stranger() as asking:
        for text in UNPRINTABLE:
            name = text.encode()
            with pytest.raises(Ended):
                Stranger(scene.plain, PlainClient(name, PASSWORD))
            for message in (
                question(b"1", b"staff", b"PLAIN", (name, PASSWORD)),
                question(b"1", name, b"NULL"),
                question(b"1", b"lab", b"NULL", address=name),
                question(b"1", b"staff", name),
                question(name, b"nowhere", b"NULL", envelope=(name.ljust(16, b"\n")[:16], b"")),
            ):
                asking.send(message)
                reply = asking.read(1)[0]
                assert b"200" not in reply
    records = [json.loads(line) for line in scene.zapd.journal().split("\n")[:-1]]
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    tried = {record.get("username") for record in records}
    assert set(UNPRINTABLE) <= tried, "the record must say what was tried"
    assert scene.zapd.journal().isascii() or harmless(scene.zapd.journal())
    assert harmless(scene.zapd.logged())
    assert harmless(scene.zapd.call("GET", "/metrics").text)


def test_lists_print_foreign_names_as_they_are_and_obey_none(scene: Scene) -> None:
    """Markup, formulas, escapes and what was tried above: one row each in `key list` and `audit list`, no control
    octet among them, and JSON gives every name back."""
    for text in PRINTABLE:
        public = encode_key(generate_keypair()[0])
        body = {
            "public_key": public,
            "user": text,
            "domains": ["orders"],
            "label": text,
            "attributes": {"Desk": text},
        }
        assert scene.zapd.call("POST", "/v1/keys", body).status_code == 201, text
    listed = scene.zapd.run("key", "list")
    assert listed.returncode == 0
    assert harmless(listed.stdout)
    assert len(listed.stdout.splitlines()) == 1 + len(PRINTABLE) + 1  # a heading, and alice
    for text in PRINTABLE:
        assert text in listed.stdout
    again = json.loads(scene.zapd.run("key", "list", "--json").stdout)
    found = again["items"] if isinstance(again, dict) else again
    assert {key["user"] for key in found} >= set(PRINTABLE)

    assert wait_for(lambda: scene.zapd.call("GET", "/v1/audit?limit=1000").is_success)
    wanted = scene.zapd.journal().count("\n")
    assert wait_for(lambda: len(scene.zapd.ask("GET", "/v1/audit?limit=1000")["items"]) >= wanted - 5)
    audit = scene.zapd.run("audit", "list", "--limit", "1000")
    assert audit.returncode == 0, audit.stderr
    assert harmless(audit.stdout)
    verified = scene.zapd.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def test_a_name_of_every_kind_reaches_the_reply_unchanged(scene: Scene) -> None:
    """What may be set may be said: user id and attributes come back octet for octet."""
    with scene.stranger() as asking:
        for text in PRINTABLE:
            public, _secret = generate_keypair()
            attributes = {"Desk": text}
            body = {
                "public_key": encode_key(public),
                "user": text,
                "domains": ["orders"],
                "attributes": attributes,
            }
            assert scene.zapd.call("POST", "/v1/keys", body).status_code == 201
            reply = asking.ask(question(b"1", b"orders", b"CURVE", (public,)))
            assert status_of(reply) == b"200"
            assert reply[5] == text.encode()
            assert b"X-Desk" + len(text.encode()).to_bytes(4, "big") + text.encode() in reply[6]
