"""Which rule speaks for a domain, and which rules are mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.auth_scene import rule

from zapd.auth.policy import Link, Policy, Rule
from zapd.errors import ConfigurationError

NAMES = st.text(alphabet="ab.*", max_size=6)
PATTERNS = st.text(alphabet="ab.", max_size=4).flatmap(lambda text: st.sampled_from([text, text + "*"]))


def spoken_for(policy, domain):
    plan = policy.plan_for(domain)
    return plan.rule.pattern if plan else None


def test_the_exact_name_wins_and_then_the_longest_pattern():
    """An exact rule beats every pattern, and of patterns the longest match speaks."""
    policy = Policy(
        tuple(rule(pattern) for pattern in ("*", "metrics.*", "metrics.eu.*", "metrics.eu.fra", "orders"))
    )
    said = {
        domain: spoken_for(policy, domain)
        for domain in (
            "orders",
            "orders2",
            "metrics.",
            "metrics",
            "metrics.us",
            "metrics.eu.ams",
            "metrics.eu.fra",
        )
    }
    assert said == {
        "orders": "orders",
        "orders2": "*",
        "metrics.": "metrics.*",
        "metrics": "*",
        "metrics.us": "metrics.*",
        "metrics.eu.ams": "metrics.eu.*",
        "metrics.eu.fra": "metrics.eu.fra",
    }


def test_the_empty_domain_needs_its_own_rule():
    """``*`` does not match the empty domain; a rule for "" does."""
    assert spoken_for(Policy((rule("*"),)), "") is None
    assert spoken_for(Policy((rule("*"), rule(""))), "") == ""


def test_the_reserved_domain_is_nobodys():
    """No pattern matches zapd's own domain, and no rule may name it."""
    policy = Policy((rule("*"), rule("zapd.*")))
    assert spoken_for(policy, "zapd.agents") is None
    assert spoken_for(policy, "zapd.agents2") == "zapd.*"
    with pytest.raises(ConfigurationError, match="reserved"):
        Policy((rule("zapd.agents"),))


def test_a_domain_nobody_speaks_for_has_no_plan():
    """Names are compared octet for octet: another case, a blank or a longer name is another domain."""
    policy = Policy((rule("orders"),))
    assert [spoken_for(policy, name) for name in ("Orders", "orders ", "order", "orders.eu")] == [None] * 4


@given(st.lists(PATTERNS, max_size=6, unique=True), NAMES)
def test_the_match_is_what_its_definition_says(patterns, domain):
    """For any rules and any name the plan is that of the exact rule, else of the longest matching prefix."""
    policy = Policy(tuple(rule(pattern) for pattern in patterns))
    expected = None
    if domain in patterns and not domain.endswith("*"):
        expected = domain
    elif domain:
        matching = [p for p in patterns if p.endswith("*") and domain.startswith(p[:-1])]
        expected = max(matching, key=len, default=None)
    assert spoken_for(policy, domain) == expected


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        (rule("a*b"), "at the end only"),
        (rule("dömän"), "printable ASCII"),
        (rule("a\n"), "printable ASCII"),
        (rule("x" * 256), "at most 255"),
        (Rule("lab", frozenset()), "name its mechanisms"),
        (rule("lab", mechanisms="CURVE MAGIC"), "unknown mechanism 'MAGIC'"),
        (Rule("lab", frozenset({"CURVE"})), "name the backends"),
        (rule("lab", mechanisms="NULL"), "add allow"),
        (rule("lab", "keys", "keys"), "twice in its chain"),
        (rule("lab", Link("keys", on_reject="maybe")), "'stop' or 'next'"),
        (rule("lab", unknown_keys="hold"), "'refuse' or 'pending'"),
        (rule("lab", allow=("nowhere",)), "no address rule"),
        (rule("lab", deny=("10.0.0.1/8",)), "10.0.0.0/8"),
        (rule("lab", null_user="x" * 256), "null_user"),
        (rule("lab", null_user="a\0"), "null_user"),
        (rule("lab", backend_deadline=2.0), "backend's deadline"),
        (rule("lab", refusal_tick=0.0), "refusal_tick"),
        (rule("lab", cache_good=-1.0), "never negative"),
        (rule("lab", grace=86401.0), "24 h"),
    ],
)
def test_a_mistake_is_named_with_its_domain(wrong, mend):
    """Each rule that cannot mean anything good is refused with the domain and the mend."""
    with pytest.raises(ConfigurationError) as caught:
        Policy((wrong,))
    assert mend in str(caught.value)
    assert repr(wrong.pattern) in str(caught.value)


def test_every_mistake_is_named_at_once():
    """One message names all mistakes, one a line."""
    with pytest.raises(ConfigurationError) as caught:
        Policy((rule("a*b"), rule("lab"), rule("lab"), rule("zapd.agents")))
    assert len(str(caught.value).splitlines()) == 3


def test_a_rule_asks_only_its_own_backends():
    """The policy lists the backends that rules name."""
    policy = Policy((rule("a", "keys"), rule("b", "staff", "keys")))
    assert policy.backends() == {"keys", "staff"}
