"""``python -m zapd`` is ``zapd``."""

from zapd.cli import main

main()
