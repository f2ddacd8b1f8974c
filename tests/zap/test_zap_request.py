"""ZAP requests: what is read, what is refused, and with which status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapd.zap import Asker, MalformedRequest, ZapRequest, parse_request, serialize_request

KEY = bytes(range(32))


def frames(**changes: bytes) -> list[bytes]:
    fields = {
        "version": b"1.0",
        "id": b"1",
        "domain": b"orders",
        "address": b"127.0.0.1",
        "identity": b"",
        "mechanism": b"CURVE",
    }
    fields.update(changes)
    return [*fields.values(), KEY]


def fault(body: list[bytes]) -> MalformedRequest:
    with pytest.raises(MalformedRequest) as caught:
        parse_request(body)
    return caught.value


def test_a_request_as_libzmq_sends_it_is_read_into_its_fields() -> None:
    """The seven frames of a CURVE question become one value, with who asked beside them."""
    asker = Asker("edge-1")
    request = parse_request(frames(), question_id=b"q" * 16, asker=asker)
    assert request == ZapRequest(b"1", "orders", "127.0.0.1", b"", "CURVE", (KEY,), b"q" * 16, asker)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost:0:0:22071", ""])
def test_every_address_form_of_libzmq_is_taken(address: str) -> None:
    """IPv4, IPv6, mapped IPv4 and ipc credentials pass as they are; deciding about them is not done here."""
    assert parse_request(frames(address=address.encode())).address == address


def test_serializing_gives_back_the_very_frames() -> None:
    """What was read is what would be sent."""
    assert serialize_request(parse_request(frames())) == frames()


def test_no_repr_shows_a_credential() -> None:
    """A password never reaches a log through repr."""
    request = parse_request([b"1.0", b"1", b"d", b"::1", b"", b"PLAIN", b"admin", b"hunter2"])
    assert "hunter2" not in repr(request)


@pytest.mark.parametrize(
    ("body", "status", "echo"),
    [
        ([], 500, None),
        ([b"1.0"], 500, None),
        ([b"1.0", b"1"], 500, b"1"),
        ([b"2.0", b"1"], 500, None),
        (frames(version=b"1.1"), 500, b"1"),
        (frames(version=b""), 500, b"1"),
        (frames(id=b"i" * 256), 500, None),
        (frames()[:-1], 500, b"1"),
        ([*frames(), b"extra"], 500, b"1"),
        ([*frames()[:-1], KEY[:-1]], 500, b"1"),
        ([*frames()[:-1], KEY + b"x"], 500, b"1"),
        (frames(mechanism=b"curve"), 400, b"1"),
        (frames(mechanism=b"CURVE\0"), 400, b"1"),
        (frames(domain=b"ord\0ers"), 400, b"1"),
        (frames(domain=b"ord\ners"), 400, b"1"),
        (frames(domain=b"\xff"), 400, b"1"),
        (frames(domain=b"d" * 256), 500, b"1"),
        (frames(address=b"127.0.0.1\x1b[2J"), 400, b"1"),
        (frames(identity=b"i" * 256), 500, b"1"),
    ],
)
def test_each_kind_of_malformed_request_has_its_status_and_its_echo(
    body: list[bytes], status: int, echo: bytes | None
) -> None:
    """Wrong shape is 500, a name that can never pass is 400, and nothing to echo means silence."""
    error = fault(body)
    assert (error.status, error.request_id) == (status, echo)


@pytest.mark.parametrize(
    ("username", "password"),
    [
        (b"ad\0min", b"x"),
        (b"admin\r\n", b"x"),
        (b"\xff\xfe", b"x"),
        (b"admin", b"x\0y"),
        ("ad\u202emin".encode(), b"x"),
    ],
)
def test_names_that_no_rule_can_admit_are_refused_before_a_backend_sees_them(
    username: bytes, password: bytes
) -> None:
    """NUL, control and bidirectional characters in a name, and NUL in a password, end at the door with 400."""
    assert fault([b"1.0", b"1", b"d", b"::1", b"", b"PLAIN", username, password]).status == 400


def test_a_malformed_gssapi_question_is_known_as_one() -> None:
    """Its refusal needs the form that libzmq obeys, so the claimed mechanism travels with the fault."""
    assert fault([b"1.0", b"1", b"d", b"::1", b"", b"GSSAPI"]).mechanism == "GSSAPI"


@given(
    st.lists(
        st.binary(max_size=300) | st.sampled_from([b"1.0", b"1", b"", b"CURVE", b"PLAIN", b"NULL"]), max_size=12
    )
)
def test_no_frames_raise_anything_else(body: list[bytes]) -> None:
    """Whatever the frames hold, the outcome is a request or a MalformedRequest."""
    try:
        request = parse_request(body)
    except MalformedRequest as error:
        assert error.status in (400, 500)
    else:
        assert serialize_request(request) == list(body)
