"""The command line: the words a person types.

`main` is the program. The commands are in one file a group, and each imports what it needs when it runs, so that
``zapd --version`` and ``zapd --help`` are quick and a base install can say which extra is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_EXTRAS = {"psycopg": "postgres"}


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
        sys.exit(missing_extra(error))
    sys.exit(run(words))


def missing_extra(error: ModuleNotFoundError) -> int:
    """Say which extra brings a library that is not there; the exit code. Raises again for one of ours."""
    library = (error.name or "").partition(".")[0]
    if not library or library.startswith("zapd"):
        raise error
    extra = _EXTRAS.get(library, "server")
    print(f"zapd: this command needs {library}: pip install 'zapd[{extra}]'", file=sys.stderr)
    return 2
