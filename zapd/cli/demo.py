"""``zapd demo``: shows the whole road in a throw-away folder."""

from __future__ import annotations

import click


@click.command("demo")
def command() -> int:
    """Show zapd at work: a real libzmq server, a known and an unknown client, a revoked key, the journal.

    Everything happens in a throw-away folder. Ends with 0 only if all went as it must.
    """
    from zapd.demo import run

    return run()
