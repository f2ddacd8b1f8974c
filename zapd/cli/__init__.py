"""The command line: the words a person types.

`main` is the program. The commands are in one file a group, and each imports what it needs when it runs, so that
``zapd --version`` and ``zapd --help`` are quick and a base install can say which extra is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_EXTRAS = {"psycopg": "postgres", "jwt": "oidc"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 refused or failed, 2 bad usage or configuration."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        from zapd import __version__

        print(f"zapd {__version__}")
        sys.exit(0)
    try:
        from zapd.cli.root import run
    except ModuleNotFoundError as error:
        told = missing_extra(error)
        if told is None:
            raise
        print(f"zapd: {told}", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(words))


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Which extra brings the library that is not there; None when it is one of our own modules."""
    library = (error.name or "").partition(".")[0]
    if not library or library.startswith("zapd"):
        return None
    return f"this command needs {library}: pip install 'zapd[{_EXTRAS.get(library, 'server')}]'"
