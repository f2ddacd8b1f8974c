"""No secret is left in what a backend says, whatever it looks like there."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.auth_scene import knowing_ada, plain, scene
from support.hostile_canary import guises as every_guise

from zapd.auth.catalog import BackendHandle
from zapd.auth.scrub import LONGEST_TEXT, Scrubber
from zapd.errors import Unavailable
from zapd.testing import FakeBackend

SECRET = "correct horse/battery+staple\\é"


@given(st.text(min_size=4, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_no_guise_is_left(secret, before, behind):
    """Plain, escaped, in a URL, in hex, in base64 wherever it stands: the text is without it."""
    octets = secret.encode("utf-8")
    scrub = Scrubber([secret])
    for told in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote_plus(secret)):
        assert told not in scrub.text(f"<{told}>") or told in "<***>"
    for told in (octets.hex(), octets.hex().upper(), repr(octets)[2:-1]):
        assert told not in scrub.text(f"it said {told}!") or told in "it said ***!"
    if len(octets) >= 8:
        whole = base64.b64encode(before + octets + behind).decode()
        assert scrub.text(whole) != whole


@given(st.binary(min_size=16, max_size=60), st.binary(max_size=2), st.binary(max_size=2))
def test_what_the_canary_hunt_looks_for_is_not_left(secret, before, behind):
    """What the hostile tests look for in base64 text is not found behind the scrubber, whatever stood by it."""
    text = Scrubber().text(base64.b64encode(before + secret + behind).decode(), secret)
    assert [guise for guise in every_guise(secret) if len(guise) >= 16 and guise.decode("latin-1") in text] == []


def test_other_words_stay():
    """What is no secret is told; a secret too short to be found is left, since marks would tell it."""
    assert Scrubber([SECRET]).text("the directory is away") == "the directory is away"
    assert Scrubber(["e"]).text("the directory is away") == "the directory is away"
    assert Scrubber().text("it quoted lovelace", b"lovelace") == "it quoted ***"


def test_long_texts_are_cut_and_no_half_secret_stays_at_the_seam():
    """Of a text that is too long the end is kept, without what a cut through a secret would leave."""
    for shift in range(len(SECRET)):
        text = SECRET + "x" * (LONGEST_TEXT - len(SECRET) + shift)
        assert set(Scrubber([SECRET]).text(text)) <= {"x", "*"}


def test_it_shows_none_itself():
    """Its repr tells how many forms it knows."""
    assert SECRET not in repr(Scrubber([SECRET]))


@pytest.mark.parametrize("kind", [Unavailable, ValueError])
async def test_what_an_error_quotes_is_in_no_log_and_no_health(kind):
    """A backend whose errors quote the password that was asked about tells it nobody, however they are chained."""

    class Quoting(FakeBackend):
        async def check(self, question):
            try:
                raise KeyError(question.password)
            except KeyError as error:
                raise kind(f"cannot parse {question.password.decode()}") from error

    world = await scene(keys=Quoting(users=knowing_ada().users))
    with capture_logs() as logs:
        assert int((await world.ask(plain(password=b"hush-hush"))).status) == 300
    assert len(logs) == 1
    assert "hush" not in repr(logs)
    assert "hush" not in repr(world.handles["keys"].health())
    assert "***" in repr(logs)


async def test_what_a_setting_holds_is_in_no_reason():
    """Neither why a backend is disabled, nor what it complains of, nor how closing it failed tells its secrets."""

    class Quoting(FakeBackend):
        async def aclose(self):
            raise ValueError(SECRET)

    backend = Quoting(
        start_failure=ConnectionError(f"ldap://cn=zapd:{quote(SECRET)}@directory cannot be reached"),
        problem=f"the password {SECRET} is weak",
    )
    handle = BackendHandle("it", "fake", backend, scrubber=Scrubber([SECRET]))
    with capture_logs() as logs:
        await handle.start()
        assert handle.health().reason == "ldap://cn=zapd:***@directory cannot be reached"
        backend.start_failure = None
        await handle._attempt(backend)
        assert handle.health().reason == "the password *** is weak"
        await handle.aclose()
    assert len([line for line in logs if line["event"] == "a backend did not close"]) == 1
    assert SECRET not in repr(logs)
    assert quote(SECRET) not in repr(logs)
