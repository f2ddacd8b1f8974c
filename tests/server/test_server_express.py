"""The express road: the very answers and the very records of the whole road, or none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.server_fixtures import ALICE, STRANGER, Connection, house, question

from zapd.auth.admission import encode_admission
from zapd.auth.backend import Admission
from zapd.auth.policy import Link, Policy, Rule
from zapd.server.express import Express
from zapd.zap import Asker

EDGE = Asker("edge-1", ("orders",))
GROUPS = ("traders",)


def by_heart(user: bytes = b"alice") -> Callable[[Sequence[bytes], str], list[Admission | None]]:
    """What `Keys` of the fixture knows, as a backend that answers from memory."""
    admission = encode_admission((user, b"m" * 43, GROUPS, ()))
    return lambda keys, domain: [admission if key == ALICE else None for key in keys]


def express_of(zapd, user: bytes = b"alice") -> Express:
    authority = zapd.endpoint._decide.__self__
    authority.backends["keys"].recall = by_heart(user)
    return Express(authority, zapd.recorder, zapd.metrics)


def stripped(line: str) -> str:
    """A record without what differs between any two: time, sequence, hash, fingerprint, milliseconds."""
    line = re.sub(r'"time":"[^"]*"|"sequence":\d+|"hash":"[^"]*"|SHA256:[^"]*', "", line)
    return re.sub(r'"accept",[0-9.e-]+', '"accept"', line)


async def test_its_reply_and_its_record_are_those_of_the_whole_road(tmp_path: Path) -> None:
    """Frame for frame and member for member, but for the fingerprint that the test's backend invents."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(EDGE)
        asked = question(ALICE, envelope=[b"\0abcd", b"q" * 16])
        zapd.endpoint.on_messages(peer, [asked])
        short = express_of(zapd)
        assert short.is_open()
        quick = short.answer(EDGE, list(asked))
        whole = peer.sent[0]
        assert quick is not None
        assert quick[:-1] == whole[:-1]
        assert len(quick[-1]) == len(whole[-1])
        assert zapd.metrics.decisions == {("orders", "CURVE", 200, "granted"): 2}
    lines = [line for line in zapd.lines().splitlines() if "auth.accept" in line]
    assert len(lines) == 2
    assert stripped(lines[0]) == stripped(lines[1])


@pytest.mark.parametrize(
    "message",
    [
        question(STRANGER),
        question(ALICE, domain=b"other"),
        question(ALICE, domain=b"ord\ners"),
        question(ALICE[:-1]),
        question(ALICE, request_id=b"i" * 256),
        question(ALICE, envelope=[b"a", b""]),
        question(ALICE)[1:],
        [*question(ALICE), b"surplus"],
        [b"", b"1.0", b"1", b"orders", b"nowhere", b"", b"CURVE", ALICE],
        [b"", b"1.1", b"1", b"orders", b"127.0.0.1", b"", b"CURVE", ALICE],
        [b"", b"1.0", b"1", b"orders", b"127.0.0.1", b"i" * 256, b"CURVE", ALICE],
        [b"", b"1.0", b"1", b"orders", b"127.0.0.1", b"", b"GSSAPI", ALICE],
    ],
)
async def test_everything_unusual_walks_the_whole_road(tmp_path: Path, message: list[bytes]) -> None:
    """A stranger, another domain, a malformed name, surplus frames: not decided here."""
    async with house(tmp_path, "relaxed") as zapd:
        short = express_of(zapd)
        assert short.is_open()
        assert short.answer(EDGE, message) is None
        assert zapd.metrics.decisions.get(("orders", "CURVE", 200, "granted"), 0) == 0


@pytest.mark.parametrize("user", ['qu"ote', "back\\slash", "zoë"])
async def test_a_name_that_json_must_escape_walks_the_whole_road(tmp_path: Path, user: str) -> None:
    """So that no name can ever break a line of the journal."""
    async with house(tmp_path, "relaxed") as zapd:
        short = express_of(zapd, user.encode())
        assert short.is_open()
        assert short.answer(EDGE, question(ALICE)) is None
    assert all(json.loads(line) for line in zapd.lines().splitlines())


async def test_an_asker_without_the_domain_is_not_let_through_by_anothers_road(tmp_path: Path) -> None:
    """What was learned for one asker is not used for another."""
    async with house(tmp_path, "relaxed") as zapd:
        short = express_of(zapd)
        assert short.is_open()
        assert short.answer(EDGE, question(ALICE)) is not None
        assert short.answer(Asker("edge-2", ("metrics.*",)), question(ALICE)) is None


async def test_what_was_learned_ends_with_the_rules_it_was_learned_under(tmp_path: Path) -> None:
    """After a reload that shuts an address out, the same question is no longer answered here."""
    async with house(tmp_path, "relaxed") as zapd:
        short = express_of(zapd)
        assert short.is_open()
        assert short.answer(EDGE, question(ALICE)) is not None
        authority = zapd.endpoint._decide.__self__
        shut = Rule("orders", frozenset({"CURVE"}), (Link("keys"),), deny=("127.0.0.0/8",))
        authority.reload(Policy((shut,)), authority.backends)
        assert short.is_open()
        assert short.answer(EDGE, question(ALICE)) is None


async def test_a_journal_that_takes_nothing_closes_it(tmp_path: Path) -> None:
    """What cannot be recorded is not admitted here either."""
    async with house(tmp_path) as zapd:
        short = express_of(zapd)
        assert short.is_open()
        await zapd.journal.close()
        assert short.answer(EDGE, question(ALICE)) is None


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"", b"1.0", b"CURVE", ALICE]), min_size=8, max_size=12))
async def test_no_frames_make_it_raise(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    """Whatever comes, the outcome is a reply or None."""
    async with house(tmp_path_factory.mktemp("journal"), "off") as zapd:
        short = express_of(zapd)
        assert short.is_open()
        assert short.answer(EDGE, parts) is None or parts[-1] == ALICE
