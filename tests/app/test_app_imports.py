"""An import into a running zapd: its keys are let in, its record is whole, and nobody is kept waiting."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

from support.app_scene import ALICE, CONFIGURATION, Asking, wait_for, z85
from support.serving import serving

from zapd.zmtp.keys import encode_key, generate_keypair


def test_an_import_is_in_force_and_on_record_once(tmp_path: Path) -> None:
    """Each of 3,000 keys is journalled once although the daemon looks for owed changes meanwhile, a key that is
    revoked in the middle of it is out, and the record verifies."""
    keys = [generate_keypair()[0] for _ in range(3000)]
    file = tmp_path / "keys.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as opened:
        writer = csv.writer(opened)
        writer.writerow(["public_key", "user", "domains"])
        writer.writerows(
            ["'" + text if text[0] in "=+-@" else text, f"u{at}", "orders"]
            for at, text in enumerate(map(encode_key, keys))
        )
    with serving(tmp_path / "zapd", configuration=CONFIGURATION) as zapd, Asking(zapd) as asking:
        leaver = zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        said: list[str] = []
        importing = threading.Thread(
            target=lambda: said.append(zapd.run("key", "import", str(file), "--json").stdout)
        )
        importing.start()
        zapd.ask("POST", f"/v1/keys/{leaver}/revoke", {"reason": "left"})
        assert asking.ask(ALICE) == 400
        importing.join(60)
        done = json.loads(said[0])
        assert (done["added"], done["refused"]) == (3000, 0)
        assert [asking.whole(keys[at]) for at in (0, 1499, 2999)] == [(200, f"u{at}") for at in (0, 1499, 2999)]
        events = [json.loads(line) for line in zapd.journal().splitlines()]
        added = [event["change"] for event in events if event["event"] == "key.add"]
        assert len(added) == len(set(added)) == 3001
        assert wait_for(lambda: zapd.run("audit", "verify").returncode == 0)
