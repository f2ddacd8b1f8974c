"""The library as a stranger would use it; mypy reads this, nothing runs it."""

from zapd.zap import Asker, ZapRequest, parse_request

request: ZapRequest = parse_request([b"1.0", b"1", b"lab", b"::1", b"", b"NULL"], asker=Asker("edge"))
