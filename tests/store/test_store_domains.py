"""Domain patterns and the rules for what may be written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapd.errors import InvalidInput
from zapd.store import rules
from zapd.store.domains import RESERVED, Grant

domains = st.text("ab.", max_size=4)
patterns = st.one_of(domains, domains.map(lambda name: name + "*"))


def _naive(pattern: str, domain: str) -> bool:
    if domain == RESERVED:
        return False
    if pattern == "*":
        return domain != ""
    if pattern.endswith("*"):
        return domain.startswith(pattern[:-1]) and domain != ""
    return pattern == domain


@given(st.lists(patterns, max_size=4), domains)
def test_a_grant_covers_what_one_of_its_patterns_does(granted: list[str], domain: str):
    """A grant is the union of its patterns, as the contract reads them."""
    assert Grant.of(granted).covers(domain) == any(_naive(pattern, domain) for pattern in granted)


@given(st.lists(patterns, max_size=3), patterns, domains)
def test_a_covered_pattern_never_reaches_further(granted: list[str], pattern: str, domain: str):
    """What lies within a covered pattern is covered too: limits cannot be stepped over."""
    grant = Grant.of(granted)
    if grant.covers_pattern(pattern) and _naive(pattern, domain):
        assert grant.covers(domain)


@pytest.mark.parametrize("granted", [("*",), ("zapd.*",), (RESERVED,), ("zapd.agents*",)])
def test_the_reserved_domain_is_never_granted(granted: tuple[str, ...]):
    """No pattern, however it is written, reaches zapd's own door."""
    assert not Grant.of(granted).covers(RESERVED)


def test_the_empty_domain_is_granted_by_name_alone():
    """A star is every domain but the empty one; the empty one must be named."""
    assert not Grant.of(["*"]).covers("")
    assert Grant.of([""]).covers("")


@pytest.mark.parametrize("wrong", [[], ["a*b"], ["**"], ["ä"], ["a\n"], ["x" * 256], [RESERVED]])
def test_wrong_domains_are_refused(wrong: list[str]):
    """Patterns that no policy could read are refused when they are set."""
    with pytest.raises(InvalidInput):
        rules.check_domains(wrong)


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x1b[31m", "x" * 256, "ä" * 128, "\u202eevil", "\ud800"])
def test_wrong_names_are_refused(name: str):
    """Names that a reply could not carry, or that would deceive who reads them, are refused."""
    with pytest.raises(InvalidInput):
        rules.check_name(name)


@pytest.mark.parametrize("name", ["alice", "Alice", " alice", "ä" * 127, "a/b", "名", "'; DROP TABLE keys; --"])
def test_names_are_kept_octet_for_octet(name: str):
    """Nothing is trimmed, folded or normalised."""
    assert rules.check_name(name) == name


@pytest.mark.parametrize(
    "attributes",
    [
        {"": "x"},
        {"a b": "x"},
        {"Zapd-Key": "x"},
        {"zapd-x": "x"},
        {"a": "1", "A": "2"},
        {"a": "\n"},
        {"x" * 254: ""},
    ],
)
def test_wrong_attributes_are_refused(attributes: dict[str, str]):
    """Attributes that are no ZMTP property, or that are ours, are refused when they are set."""
    with pytest.raises(InvalidInput):
        rules.check_attributes(attributes)


def test_groups_and_attributes_fit_a_reply_or_are_refused():
    """Together they take 4 KiB of a reply at most."""
    rules.check_metadata(["g"], [("Desk", "x" * 3900)])
    with pytest.raises(InvalidInput, match="4096"):
        rules.check_metadata(["g"], [("Desk", "x" * 4090)])
    with pytest.raises(InvalidInput, match="comma"):
        rules.check_groups(["a,b"])


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "ipc", ""])
def test_wrong_networks_are_refused(text: str):
    """A network is written as it will be compared, or not at all."""
    with pytest.raises(InvalidInput):
        rules.check_networks([text])
