"""How the parent starts a worker: ``python -m zapd.app.workers NUMBER CHANNEL CONNECTIONS``, two descriptors."""

from __future__ import annotations

import sys

from zapd.app.workers.worker import main

sys.exit(main(*map(int, sys.argv[1:4])))
