"""Keys as people meet them: Z85 taken exactly or refused with the reason, pairs, fingerprints."""

from __future__ import annotations

import base64
import hashlib

import pytest
import zmq
import zmq.utils.z85
from hypothesis import given, settings
from hypothesis import strategies as st
from support.curve_dialogue import KEYS, Z85

from zapd.errors import InvalidInput
from zapd.zmtp import keys

MANUALS_PUBLIC = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
MANUALS_SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"


@pytest.mark.parametrize("name", ["S", "s", "C", "c"])
def test_vectors(name: str) -> None:
    """The four long-term keys of the vectors, both ways."""
    assert keys.encode_key(KEYS[name]) == Z85[name]
    assert keys.decode_secret_key(Z85[name]) == KEYS[name]
    if name.isupper():
        assert keys.decode_public_key(Z85[name]) == KEYS[name]


def test_the_pair_of_libzmqs_manual() -> None:
    """The example key pair of zmq_curve(7) is read as libzmq reads it, and its halves belong together."""
    public, secret = keys.decode_public_key(MANUALS_PUBLIC), keys.decode_secret_key(MANUALS_SECRET)
    assert public == zmq.utils.z85.decode(MANUALS_PUBLIC.encode())
    assert keys.public_of(secret) == public
    assert zmq.curve_public(MANUALS_SECRET.encode()).decode() == keys.encode_key(public)


def test_rfc_32s_example_digits() -> None:
    """RFC 32's test case, 86 4F D2 6F B5 59 F7 5B = HelloWorld, within a whole key."""
    key = bytes.fromhex("864FD26FB559F75B") * 4
    assert keys.encode_key(key) == "HelloWorld" * 4
    assert keys.decode_public_key("HelloWorld" * 4) == key


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_as_libzmqs_binding_writes_it(key: bytes) -> None:
    """Any 32 octets come back, and look as pyzmq's Z85 has them."""
    text = keys.encode_key(key)
    assert len(text) == 40
    assert text.encode() == zmq.utils.z85.encode(key)
    assert keys.decode_secret_key(text) == key


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet=keys.Z85_ALPHABET, min_size=40, max_size=40))
def test_any_text_is_a_key_or_invalid_input(text: str) -> None:
    """Whatever is typed, the answer is 32 octets that read back the same, or InvalidInput."""
    try:
        key = keys.decode_public_key(text)
    except InvalidInput:
        return
    assert keys.encode_key(key) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not 0"),
        (Z85["C"][:-1], "40 characters of Z85, not 39"),
        (Z85["C"] + "0", "40 characters of Z85, not 41"),
        (Z85["C"] + "\n", "white space"),
        (" " + Z85["C"], "white space"),
        (Z85["C"][:-1] + " ", "character 40 .* ' '"),
        ("~" + Z85["C"][1:], "character 1 .* '~'"),
        (Z85["C"][:20] + "é" + Z85["C"][21:], r"character 21 .* '\\xe9'"),
        (Z85["C"][:20] + "\u0663" + Z85["C"][21:], r"character 21 .* '\\u0663'"),
        (Z85["C"][:20] + "\0" + Z85["C"][21:], r"character 21 .* '\\x00'"),
        (KEYS["C"].hex(), "looks like hex"),
        (KEYS["C"].hex().upper(), "looks like hex"),
        (base64.b64encode(KEYS["C"]).decode(), "looks like base64"),
        (base64.urlsafe_b64encode(KEYS["C"]).decode().rstrip("="), "looks like base64"),
        ("x" * 64, "not 64$"),
        ("~" * 44, "not 44$"),
        ("#####" + Z85["C"][5:], "characters 1 to 5 .* exceed 32 bits"),
        (Z85["C"][:35] + "%nSc1", "characters 36 to 40 .* exceed 32 bits"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    """Each mistake has a message of its own, which names the place and never repeats the key."""
    for decode in (keys.decode_public_key, keys.decode_secret_key):
        with pytest.raises(InvalidInput, match=words) as caught:
            decode(text)
        assert not any(text[at : at + 6] in str(caught.value) for at in range(len(text) - 6))


def test_the_largest_word_is_read() -> None:
    """2^32-1 is %nSc0 in Z85; one more is refused."""
    assert keys.decode_secret_key("%nSc0" * 8) == b"\xff" * 32


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_points_of_small_order_are_no_public_keys(point: bytes) -> None:
    """A registry never takes a key that anybody could use (R6); as a secret the same octets are as good as any."""
    with pytest.raises(InvalidInput, match="small order"):
        keys.decode_public_key(keys.encode_key(point))
    assert keys.decode_secret_key(keys.encode_key(point)) == point


@pytest.mark.parametrize("size", [0, 31, 33, 40])
def test_keys_of_another_size(size: int) -> None:
    """What is not 32 octets is not encoded, and has no public half."""
    with pytest.raises(InvalidInput, match=f"32 octets, not {size}"):
        keys.encode_key(bytes(size))
    with pytest.raises(InvalidInput, match=f"32 octets, not {size}"):
        keys.public_of(bytes(size))


def test_new_pairs_are_libzmqs() -> None:
    """libzmq derives from our secret the public key that we state, and no two pairs are alike."""
    public, secret = keys.generate_keypair()
    assert zmq.curve_public(keys.encode_key(secret).encode()).decode() == keys.encode_key(public)
    assert keys.public_of(secret) == public
    assert len({keys.generate_keypair() for _ in range(5)}) == 5


def test_fingerprints_are_openssh_shaped() -> None:
    """SHA256: and unpadded base64; in paths the 43 URL-safe characters alone."""
    digest = hashlib.sha256(KEYS["C"]).digest()
    assert keys.fingerprint(KEYS["C"]) == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert keys.fingerprint_id(KEYS["C"]) == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert len(keys.fingerprint_id(KEYS["C"])) == 43


@given(st.binary(min_size=32, max_size=32))
def test_the_spellings_of_a_fingerprint_lead_to_each_other(key: bytes) -> None:
    """OpenSSH's, with its prefix and without, and that of URLs."""
    shown, identifier = keys.fingerprint(key), keys.fingerprint_id(key)
    mark = shown.removeprefix("SHA256:")
    assert keys.identifier_of(shown) == keys.identifier_of(mark) == keys.identifier_of(identifier) == identifier
    assert keys.mark_of(identifier) == mark
    assert keys.fingerprint_of(identifier) == shown


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_every_honest_public_key_may_be_registered(secret: bytes) -> None:
    """Whatever the secret, its public half passes; with its top bit set it does not."""
    public = keys.public_of(secret)
    assert keys.check_public_key(public) == public
    with pytest.raises(InvalidInput, match="top bit"):
        keys.check_public_key(public[:-1] + bytes([public[-1] | 0x80]))


def test_no_other_octets_may_be_registered() -> None:
    """All zeros, points of small order, numbers above the prime, points of the twist, short and long ones; and of
    random octets nearly none."""
    prime = 2**255 - 19
    for number, words in (
        (0, "all zeros"),
        (1, "small order"),
        (prime - 1, "small order"),
        (prime, "small order"),
        (prime + 2, "no point"),
        (2, "no point"),
    ):
        with pytest.raises(InvalidInput, match=words):
            keys.check_public_key(number.to_bytes(32, "little"))
    for size in (0, 31, 33):
        with pytest.raises(InvalidInput, match="32 octets"):
            keys.check_public_key(bytes(size))
    taken = 0
    for number in range(2, 200):
        try:
            keys.check_public_key(number.to_bytes(32, "little"))
        except InvalidInput:
            continue
        taken += 1
    assert 0 < taken < 50  # one in sixteen is in the subgroup; 9, the base point, among them
    assert keys.check_public_key((9).to_bytes(32, "little"))
