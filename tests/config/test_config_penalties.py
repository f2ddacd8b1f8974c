"""What wrong tries cost: settings that contradict each other or a promise are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from zapd.config import InvalidConfiguration, load


def warnings(folder: Path, text: str) -> list[str]:
    """What is unwise in these penalties."""
    (folder / "zapd.toml").write_text(f"[penalties]\n{text}\n")
    return [str(each) for each in load(folder / "zapd.toml").warnings if each.setting.startswith("penalties")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tries = 30", "one address alone could use it up"),
        ("account_tries = 5", "one address alone could use it up"),
        ('shortest = "10m"', "must be at most longest"),
        ('forgive = "0s"', "is nothing"),
        ('trusted = ["ten"]', "ten"),
        ("key_tries = 0", "key_tries"),
    ],
)
def test_what_would_break_a_promise_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Settings by which one address could lock a name out elsewhere, and those that mean nothing."""
    with pytest.raises(InvalidConfiguration, match=words):
        warnings(tmp_path, text)


def test_more_addresses_of_a_key_than_are_known_again_are_a_warning(tmp_path: Path) -> None:
    """A fleet with an outdated key that is to cost nothing must not be larger than what is remembered of it."""
    assert warnings(tmp_path, "key_tries = 32") == []
    (found,) = warnings(tmp_path, "key_tries = 33")
    assert found.startswith("line 2: penalties.key_tries: ") and found.endswith("write 32 at most")


def test_the_terms_are_those_of_the_file(tmp_path: Path) -> None:
    """What is written reaches whoever decides."""
    (tmp_path / "zapd.toml").write_text(
        "[penalties]\nkey_tries = 7\naddress_tries = 8\n[limits]\npenalty_entries = 9\n"
    )
    terms = load(tmp_path / "zapd.toml").terms()
    assert (terms.key_tries, terms.address_tries, terms.entries) == (7, 8, 9)
