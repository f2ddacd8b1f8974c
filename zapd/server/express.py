"""The express road: a CURVE question whose every part but the key was decided before, and whose key a backend
knows by heart. Octets in, octets out.

A fleet at work asks the same few things again and again: the same agent, about the same domain, for peers from
the same addresses. What the policy says to all of that is learned once (`Road`), and each question costs a look
into the registry, its line in the journal and its reply, with nothing decoded and nothing made on the way.
Whatever is not quite so (another shape, an unknown or expired key, a backend that must be asked) is None here,
and walks the whole road of `zapd.server.endpoint`, which comes to the same answer.
"""

from __future__ import annotations

from zapd.audit.journal import JournalUnavailable
from zapd.auth.authority import Authority
from zapd.auth.lanes import Place
from zapd.server.metrics import DecisionMetrics
from zapd.server.recorder import Recorder, members_of_granted
from zapd.zap import Asker, MalformedRequest, parse_request
from zapd.zap.envelope import MAX_ADDRESSES, QUESTION_ID_LENGTH
from zapd.zap.request import MAX_STRING, VERSION

ROADS = 16_384
"""Roads that are remembered; beyond it all are learned anew."""

_BODY = 7
"""Frames of a CURVE question behind the delimiter."""
_ANY_KEY = bytes(32)


class Road:
    """What is the same for all CURVE questions of one asker about one domain from one address."""

    __slots__ = ("after", "before", "count", "place")

    def __init__(self, place: Place, before: bytes, after: bytes, count: tuple[str, str, int, str]) -> None:
        self.place = place
        self.before = before
        """The journal's members up to the principal's name."""
        self.after = after
        """The journal's members behind the question id."""
        self.count = count
        """Where the metrics count it."""


class Express:
    """Answers what it can at once, and records it."""

    def __init__(self, authority: Authority, recorder: Recorder, metrics: DecisionMetrics) -> None:
        self._authority = authority
        self._recorder = recorder
        self._metrics = metrics
        self._roads: dict[tuple[Asker, bytes, bytes], Road | None] = {}
        self._learned_under: object | None = None

    def is_open(self) -> bool:
        """Whether this road may be taken now. To be asked before each batch, and none but `answer` in between."""
        in_force = self._authority.in_force
        if in_force is not self._learned_under:
            self._roads.clear()  # other rules
            self._learned_under = in_force
        return in_force is not None

    def answer(self, asker: Asker, parts: list[bytes]) -> list[bytes] | None:
        """The reply to a message, envelope in front, recorded; None when it must walk the whole road."""
        if len(parts) <= _BODY:
            return None
        *envelope, version, request_id, domain, address, identity, mechanism, key = parts
        if (
            mechanism != b"CURVE"
            or version != VERSION
            or len(key) != 32
            or envelope[-1]
            or envelope.count(b"") != 1  # the delimiter, and no other before it
            or len(envelope) > MAX_ADDRESSES
            or len(request_id) > MAX_STRING
            or len(domain) > MAX_STRING  # before it is looked for: what is not found is remembered
            or len(address) > MAX_STRING
            or len(identity) > MAX_STRING
        ):
            return None
        roads = self._roads
        try:
            road = roads[asker, domain, address]
        except KeyError:
            road = self._learn(asker, domain, address)
        if road is None:
            return None
        admitted = self._authority.admit(road.place, key)
        if admitted is None:
            return None
        (user, mark, _, _), metadata = admitted
        if not self._recorder.silent:
            if not user.isascii() or b'"' in user or b"\\" in user:
                return None  # JSON would have to escape it
            if len(envelope) > 1 and len(envelope[-2]) == QUESTION_ID_LENGTH:
                asked: tuple[bytes, ...] = (_GRANTED_QUESTION, envelope[-2].hex().encode(), b'"', road.after)
            else:
                asked = (_GRANTED, road.after)
            try:
                self._recorder.journal.append_members((road.before, user, _KEY, mark, *asked))
            except JournalUnavailable:
                return None  # the whole road meets the same trouble, and answers 300
        self._metrics.decisions[road.count] += 1
        envelope += (VERSION, request_id, b"200", b"OK", user, metadata)
        return envelope

    def _learn(self, asker: Asker, domain: bytes, address: bytes) -> Road | None:
        """Walk the road once, with everything but the key."""
        if len(self._roads) >= ROADS:
            self._roads.clear()
        road = None
        try:
            request = parse_request([VERSION, b"", domain, address, b"", b"CURVE", _ANY_KEY], asker=asker)
        except MalformedRequest:
            pass
        else:
            place = self._authority.place(asker, request.domain, request.address)
            if place is not None:
                before, after = members_of_granted(request, place.first.name)
                if before.isascii() and after.isascii():
                    road = Road(place, before, after, self._metrics.slot(request.domain, "CURVE", 200, "granted"))
        self._roads[asker, domain, address] = road
        return road


_KEY = b'","key":"SHA256:'
_GRANTED = b'","status":200,"reason":"granted"'
_GRANTED_QUESTION = _GRANTED + b',"question_id":"'
