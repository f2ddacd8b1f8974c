"""The express road: CURVE questions whose every part but the key was decided before, and whose keys a backend
knows by heart. Octets in, octets out.

A fleet at work asks the same few things again and again: the same agent, about the same domain, for peers from
the same addresses. What the policy says to all of that is learned once (`Road`). What came together and lies alike
on the wire (`zapd.zmtp.run.Run`) is answered together: all keys are looked up in one call, all records sealed in
one, and each reply is the beginning of its question with an admission behind it; nothing is decoded on the way.
Whatever is not quite so (another shape, an unknown or expired key, a backend that must be asked) is left to the
whole road of `zapd.server.endpoint`, which comes to the same answer.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from typing import cast

from zapd.audit.journal import JournalUnavailable
from zapd.auth.admission import MARK, USER, frames_of
from zapd.auth.authority import Authority
from zapd.auth.backend import Admission
from zapd.auth.catalog import BackendHandle
from zapd.auth.lanes import Place
from zapd.server.answers import Answers
from zapd.server.metrics import DecisionMetrics, Slot
from zapd.server.recorder import Recorder, members_of_granted
from zapd.server.remembered import RememberedPasswords
from zapd.server.wire_question import BODY, WirePassword, WireQuestion, wire_form
from zapd.zap import Asker, MalformedRequest, parse_request, question_id
from zapd.zap.envelope import MAX_ADDRESSES
from zapd.zap.request import MAX_STRING, VERSION
from zapd.zmtp.run import Run, Shape

ROADS = 16_384
"""Roads that are remembered; beyond it all are learned anew."""
SHAPES = 256
"""Shapes on the wire that are remembered; beyond it all are learned anew."""

_ANY_KEY = bytes(32)
_KEY = b'","key":"SHA256:'
_GRANTED = b'","status":200,"reason":"granted"'
_GRANTED_QUESTION = _GRANTED + b',"question_id":"'


class Road:
    """What is the same for all CURVE questions of one asker about one domain from one address."""

    __slots__ = ("after", "before", "place", "quoted_after", "slot")

    def __init__(self, place: Place, before: bytes, after: bytes, slot: Slot) -> None:
        self.place = place
        self.before = before
        """The journal's members up to the principal's name."""
        self.after = after
        """The journal's members behind the question id."""
        self.quoted_after = b'"' + after
        self.slot = slot
        """Where the metrics count it."""


class Express:
    """Answers what it can at once, and records it."""

    def __init__(self, authority: Authority, recorder: Recorder, metrics: DecisionMetrics) -> None:
        self._authority = authority
        self._recorder = recorder
        self._metrics = metrics
        self._roads: dict[tuple[Asker, bytes, bytes], Road | None] = {}
        self._wire_roads: dict[Asker, dict[bytes, Road | None]] = {}
        """The same by all the octets between request id and key."""
        self._wire_road_count = 0
        self._places: dict[tuple[BackendHandle, str], Place] = {}
        """One for each backend and domain, so that roads which lead to the same one are seen to."""
        self._questions: dict[Shape, WireQuestion | WirePassword | None] = {}
        self._passwords = RememberedPasswords(authority, recorder, metrics)
        self._remembered_since = -1
        self._learned_under: object | None = None

    def is_open(self) -> bool:
        """Whether this road may be taken now. To be asked before each batch; nothing may be awaited between."""
        in_force = self._authority.in_force
        if in_force is not self._learned_under:
            self._forget_roads()  # other rules
            self._places.clear()
            self._passwords.forget()
            self._learned_under = in_force
        generation = self._authority.cache.generation
        if generation != self._remembered_since:
            self._passwords.forget()
            self._remembered_since = generation
        return in_force is not None

    # Many at once

    def answer_run(self, asker: Asker, run: Run) -> Answers:
        """Answer and record all of a run that can be."""
        try:
            question = self._questions[run.shape]
        except KeyError:
            question = self._learn_question(run.shape)
        if question is None:
            return Answers([], [], run.parts)
        if isinstance(question, WirePassword):
            return self._passwords.answer_run(asker, run, question)
        heads, middles, keys = zip(*question.cut(run.octets), strict=True)
        if not question.is_version_right(heads):
            return Answers([], [], run.parts)
        roads = self._roads_along(asker, question, middles)
        found = self._admit(roads, keys)
        others: list[list[bytes]] = []
        if None in found:
            others = [parts for parts, admission in zip(run, found, strict=True) if admission is None]
            kept = [row for row in zip(heads, roads, found, strict=True) if row[2] is not None]
            if not kept:
                return Answers([], [], others)
            heads, roads, found = zip(*kept, strict=True)
        admissions = cast(Sequence[Admission], found)
        taken = cast(Sequence[Road], roads)
        if not self._recorder.silent:
            try:
                self._record(taken, question.question_id, heads, admissions)
            except JournalUnavailable:  # the whole road meets the same trouble, and answers 300
                return Answers([], [], run.parts)
        self._metrics.add([road.slot for road in taken])
        return Answers(heads, admissions, others)

    def _admit(self, roads: Sequence[Road | None], keys: Sequence[bytes]) -> Sequence[Admission | None]:
        """The admission of each key on its road, None where there is none."""
        places = [None if road is None else road.place for road in roads]
        if places.count(places[0]) == len(places):
            return (None,) * len(keys) if places[0] is None else self._authority.admit(places[0], keys)
        found: list[Admission | None] = [None] * len(keys)
        for place in set(places):
            if place is not None:
                here = [number for number, each in enumerate(places) if each is place]
                admissions = self._authority.admit(place, [keys[number] for number in here])
                for number, admission in zip(here, admissions, strict=True):
                    found[number] = admission
        return found

    def _record(
        self,
        roads: Sequence[Road],
        question_id: slice | None,
        heads: Sequence[bytes],
        admissions: Sequence[Admission],
    ) -> None:
        """Append all of them, or none: raises `JournalUnavailable`."""
        user, mark = USER, MARK
        events: list[tuple[bytes, ...]]
        if question_id is None:
            events = [
                (road.before, one[user : user + one[user - 1]], _KEY, one[mark:], _GRANTED, road.after)
                for road, one in zip(roads, admissions, strict=True)
            ]
        else:
            known = _GRANTED_QUESTION
            events = [
                (
                    road.before,
                    one[user : user + one[user - 1]],
                    _KEY,
                    one[mark:],
                    known,
                    hexlify(head[question_id]),
                    road.quoted_after,
                )
                for road, head, one in zip(roads, heads, admissions, strict=True)
            ]
        self._recorder.journal.append_rendered(events)

    # One by one

    def answer(self, asker: Asker, parts: list[bytes]) -> list[bytes] | None:
        """The reply to a message, envelope in front, recorded; None when it must walk the whole road."""
        if len(parts) <= BODY:
            return None
        if parts[-3] == b"PLAIN":
            return self._answer_password(asker, parts[:-6], parts[-6:])
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
        try:
            road = self._roads[asker, domain, address]
        except KeyError:
            road = self._learn(asker, domain, address)
        if road is None:
            return None
        (admission,) = self._authority.admit(road.place, (key,))
        if admission is None:
            return None
        if not self._recorder.silent:
            asked = question_id(envelope)
            try:
                self._record((road,), slice(len(asked)) if asked else None, (asked,), (admission,))
            except JournalUnavailable:
                return None
        self._metrics.decisions[road.slot] += 1
        envelope += (VERSION, request_id, *frames_of(admission))
        return envelope

    def _answer_password(self, asker: Asker, head: list[bytes], question: list[bytes]) -> list[bytes] | None:
        """The same under PLAIN; ``question`` is what stands behind the request id."""
        if len(head) < 3:
            return None
        *envelope, version, request_id = head
        if (
            version != VERSION
            or envelope[-1]
            or envelope.count(b"") != 1
            or len(envelope) > MAX_ADDRESSES
            or len(request_id) > MAX_STRING
        ):
            return None
        admission = self._passwords.answer(asker, envelope, question)
        return None if admission is None else [*head, *frames_of(admission)]

    # Learning

    def _learn(self, asker: Asker, domain: bytes, address: bytes) -> Road | None:
        """Walk the road once, with everything but the key."""
        if len(self._roads) >= ROADS:
            self._roads.clear()
        if len(self._places) >= ROADS:
            self._places.clear()
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
                    place = self._places.setdefault((place.first, place.domain), place)
                    road = Road(place, before, after, self._metrics.slot(request.domain, "CURVE", 200, "granted"))
        self._roads[asker, domain, address] = road
        return road

    def _roads_along(
        self, asker: Asker, question: WireQuestion, middles: Sequence[bytes]
    ) -> Sequence[Road | None]:
        """The road of each question, by its octets between request id and key."""
        try:
            known = self._wire_roads[asker]
        except KeyError:
            known = self._wire_roads[asker] = {}
        try:
            return [known[middle] for middle in middles]
        except KeyError:
            return [self._wire_road(asker, known, question, middle) for middle in middles]

    def _wire_road(
        self, asker: Asker, known: dict[bytes, Road | None], question: WireQuestion, middle: bytes
    ) -> Road | None:
        if middle in known:
            return known[middle]
        if self._wire_road_count >= ROADS:
            self._forget_roads()
            self._wire_roads[asker] = known
        domain, address, _, mechanism = question.open_middle(middle)
        road = self._learn(asker, domain, address) if mechanism == b"CURVE" else None
        known[middle] = road
        self._wire_road_count += 1
        return road

    def _forget_roads(self) -> None:
        self._roads.clear()
        for known in self._wire_roads.values():
            known.clear()
        self._wire_roads.clear()
        self._wire_road_count = 0

    def _learn_question(self, shape: Shape) -> WireQuestion | WirePassword | None:
        if len(self._questions) >= SHAPES:
            self._questions.clear()
        question = self._questions[shape] = wire_form(shape)
        return question
