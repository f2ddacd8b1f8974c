"""Rotating keys and agents from the command line."""

from pathlib import Path

import pytest
from support.cli_server import Served
from test_cli_rest import new_key, new_name

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import encode_key


def test_a_key_is_rotated(served: Served) -> None:
    """The new key has the old one's holder; both are shown; spans are read, and nonsense is bad usage."""
    (old, _), (new, _), (third, _) = new_key(), new_key(), new_key()
    served.run("key", "add", old, "--user", "alice", "--label", "one")
    done = served.json("key", "rotate", old, new, "--overlap", "2h", "--label", "two", "--expires", "90d")
    assert (done["new"]["user"], done["new"]["label"]) == ("alice", "two")
    assert (done["new"]["replaces"], done["old"]["replaced_by"]) == (done["old"]["id"], done["new"]["id"])
    assert served.json("key", "show", old)["replaced_by"] == done["new"]["id"]
    table = served.run("key", "rotate", new, third, "--overlap", "0", "--yes", "--never-expires").stdout
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["old", "new"]
    assert "revoked" in table
    assert served.json("key", "show", third)["expires"] is None
    both = ("--expires", "1d", "--never-expires")
    for wrong in (("--overlap", "soon"), ("--overlap", "-1d"), both):
        served.run("key", "rotate", third, new_key()[0], *wrong, code=2)
    assert "already" in served.run("key", "rotate", third, old, code=1).stderr


@pytest.mark.parametrize(("first", "second"), [("-", ""), ("", "-"), ("-", "-")])
def test_keys_that_look_like_options_stay_in_their_places(served: Served, first: str, second: str) -> None:
    """Which key is old and which is new is a matter of their order, however they begin."""
    (old, _), (new, print_of_new) = new_key(first), new_key(second)
    served.run("key", "add", old, "--user", "alice")
    done = served.json("key", "rotate", old, new, "--label", "-" * 40)
    assert (done["new"]["fingerprint"], done["new"]["label"]) == (print_of_new, "-" * 40)


def test_an_agent_is_rotated_and_revoked_with_a_reason(served: Served, tmp_path: Path) -> None:
    """A new file with a new pair and the same endpoints, never over the old one; the reason is kept."""
    name = new_name("edge")
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    first = served.json("agent", "enroll", name, "-o", str(old), "--domain", "default")
    served.run("agent", "rotate", name, "-o", str(old), code=1)
    assert served.json("agent", "show", name)["fingerprint"] == first["fingerprint"]
    rotated = served.json("agent", "rotate", name, "-o", str(new), "--overlap", "10m")
    assert rotated["previous_fingerprint"] == first["fingerprint"] != rotated["fingerprint"]
    before, after = read_keys(old), read_keys(new)
    assert before.endpoints == after.endpoints
    assert before.secret_key != after.secret_key
    assert encode_key(after.secret_key) not in served.run("agent", "show", name).stdout
    assert "previous until" in served.run("agent", "show", name).stdout
    assert (
        served.json("agent", "revoke", name, "--reason", "sold the robot", "--yes")["reason"] == "sold the robot"
    )


def test_keys_and_users_are_changed(served: Served) -> None:
    """What is named changes, the rest stays; times and lists can be cleared; saying nothing is bad usage."""
    key, _ = new_key()
    served.run("key", "add", key, "--user", "alice", "--group", "g", "--attr", "Desk=7", "--expires", "90d")
    done = served.json("key", "change", key, "--label", "laptop", "--never-expires", "--group", "h")
    assert (done["label"], done["expires"], done["groups"], done["attributes"]) == (
        "laptop",
        None,
        ["h"],
        {"Desk": "7"},
    )
    done = served.json("key", "change", key, "--no-groups", "--no-attributes", "--user", "bob", "--domain", "x.*")
    assert (done["groups"], done["attributes"], done["user"], done["domains"]) == ([], {}, "bob", ["x.*"])
    name = new_name("user")
    served.run("user", "add", name, text="secret\n")
    assert served.json("user", "change", name, "--group", "g", "--expires", "1d")["groups"] == ["g"]
    for wrong in (("key", "change", key), ("user", "change", name)):
        served.run(*wrong, code=2)
    served.run("key", "change", key, "--expires", "1d", "--never-expires", code=2)
