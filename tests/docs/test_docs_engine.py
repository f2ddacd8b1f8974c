"""The page of the engine: its examples run, and its table names every mechanism."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from support.gssapi_scene import ALICE, Alice, alice  # noqa: F401 - a fixture
from support.kdc import HOST_BASED, kdc  # noqa: F401 - a fixture
from support.net_handlers import Answering
from support.net_wire import until

from zapd.zmtp.mechanisms import lookup

PAGE = (Path(__file__).parents[2] / "docs" / "engine.md").read_text()


async def run_example(number: int, names: dict[str, Any], changes: dict[str, str]) -> None:
    """Run a block of code of the page in ``names``, with other words in the place of some."""
    code = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[number]
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    waiting = eval(compile(code, "docs/engine.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if waiting is not None:
        await waiting


async def test_the_examples_run(alice: Alice) -> None:  # noqa: F811
    """The listener and the dealer as they stand there, in a realm of the tests' and on a free port."""
    got: list[list[bytes]] = []
    names: dict[str, Any] = {"handler": Answering(200), "on_messages": got.extend}
    here = {"127.0.0.1:9500": "127.0.0.1:0", "/etc/zapd/zmq.keytab": str(alice.kdc.keytab)}
    await run_example(0, names, here)
    there = {"tcp://host.example.org:9500": str(names["address"]), "zmq@host.example.org": HOST_BASED}
    await run_example(1, names, there)
    assert await names["dealer"].wait_up(10)
    names["dealer"].send_messages([[b"hello"]])
    await until(lambda: got == [[b"hello"]])
    assert [asked.credentials for asked in names["handler"].asked] == [(ALICE,)]
    await names["dealer"].close()
    await names["router"].close()


def test_every_mechanism_is_in_the_table() -> None:
    """Each with the names of its two sides."""
    for name in ("NULL", "PLAIN", "CURVE", "GSSAPI"):
        sides = lookup(name)
        row = f"| {name} | `{sides.server.__name__}`, `{sides.client.__name__}` |"  # type: ignore[attr-defined]
        assert row in PAGE
