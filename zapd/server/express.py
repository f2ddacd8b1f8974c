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

from zapd.audit.journal import JournalUnavailable
from zapd.auth.admission import MARK, USER, frames_of
from zapd.auth.authority import Authority
from zapd.auth.backend import Admission
from zapd.auth.lanes import Place
from zapd.server.answers import Answers
from zapd.server.metrics import DecisionMetrics
from zapd.server.recorder import Recorder, members_of_granted
from zapd.server.remembered import RememberedPasswords
from zapd.server.wire_question import BODY, WirePassword, WireQuestion, wire_form
from zapd.zap import Asker, MalformedRequest, parse_request
from zapd.zap.envelope import MAX_ADDRESSES, QUESTION_ID_LENGTH
from zapd.zap.request import MAX_STRING, VERSION
from zapd.zmtp.run import Run

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

    __slots__ = ("after", "before", "count", "place", "quoted_after")

    def __init__(self, place: Place, before: bytes, after: bytes, count: tuple[str, str, int, str]) -> None:
        self.place = place
        self.before = before
        """The journal's members up to the principal's name."""
        self.after = after
        """The journal's members behind the question id."""
        self.quoted_after = b'"' + after
        self.count = count
        """Where the metrics count it."""


class Express:
    """Answers what it can at once, and records it."""

    def __init__(self, authority: Authority, recorder: Recorder, metrics: DecisionMetrics) -> None:
        self._authority = authority
        self._recorder = recorder
        self._metrics = metrics
        self._roads: dict[tuple[Asker, bytes, bytes], Road | None] = {}
        self._wire_roads: dict[tuple[Asker, bytes], Road | None] = {}
        """The same by all the octets between request id and key."""
        self._questions: dict[tuple[int, ...], WireQuestion | WirePassword | None] = {}
        """By the sizes of a message's parts."""
        self._passwords = RememberedPasswords(authority, recorder, metrics)
        self._remembered_since = -1
        self._learned_under: object | None = None

    def is_open(self) -> bool:
        """Whether this road may be taken now. To be asked before each batch; nothing may be awaited between."""
        in_force = self._authority.in_force
        if in_force is not self._learned_under:
            self._roads.clear()  # other rules
            self._wire_roads.clear()
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
        sizes = run.shape.sizes
        try:
            question = self._questions[sizes]
        except KeyError:
            question = self._learn_question(sizes)
        if question is None or not question.is_version_right(run.octets):
            return Answers([], [], list(run))
        if isinstance(question, WirePassword):
            return self._passwords.answer_run(asker, run, question)
        rows = question.cut(run.octets)
        heads, middles, keys = zip(*rows, strict=True)
        if middles.count(middles[0]) == len(middles):
            road = self._wire_road(asker, question, middles[0])
            return self._answer_alike(run, question, road, middles[0], heads, keys)
        # Other addresses or domains: each kind by itself.
        kinds: dict[bytes, list[tuple[bytes, bytes, bytes]]] = {}
        for row in rows:
            kinds.setdefault(row[1], []).append(row)
        together = Answers([], [], [])
        for middle, alike in kinds.items():
            heads, _, keys = zip(*alike, strict=True)
            road = self._wire_road(asker, question, middle)
            some = self._answer_alike(run, question, road, middle, heads, keys)
            together.heads.extend(some.heads)
            together.admissions.extend(some.admissions)
            together.others.extend(some.others)
        return together

    def _answer_alike(
        self,
        run: Run,
        question: WireQuestion,
        road: Road | None,
        middle: bytes,
        heads: Sequence[bytes],
        keys: Sequence[bytes],
    ) -> Answers:
        """Answer questions of a run that differ in nothing but envelope, request id and key."""

        def parts(head: bytes, key: bytes) -> list[bytes]:
            return list(run.shape.bodies.unpack(head + middle + key))

        if road is None:
            return Answers([], [], list(map(parts, heads, keys)))
        found = self._authority.admit(road.place, keys)
        admissions = [admission for admission in found if admission is not None]
        known, others = list(heads), []
        if len(admissions) < len(found):
            known = [head for head, admission in zip(heads, found, strict=True) if admission is not None]
            left = zip(heads, keys, found, strict=True)
            others = [parts(head, key) for head, key, admission in left if admission is None]
        if not self._recorder.silent and admissions:
            try:
                self._record(road, question.question_id, known, admissions)
            except JournalUnavailable:  # the whole road meets the same trouble, and answers 300
                return Answers([], [], list(map(parts, heads, keys)))
        self._metrics.decisions[road.count] += len(admissions)
        return Answers(known, admissions, others)

    def _record(
        self, road: Road, question_id: slice | None, heads: Sequence[bytes], admissions: Sequence[Admission]
    ) -> None:
        """Append all of them, or none: raises `JournalUnavailable`."""
        before, user, mark = road.before, USER, MARK
        events: list[tuple[bytes, ...]]
        if question_id is None:
            after = road.after
            events = [
                (before, one[user : user + one[user - 1]], _KEY, one[mark:], _GRANTED, after) for one in admissions
            ]
        else:
            known, after = _GRANTED_QUESTION, road.quoted_after
            events = [
                (
                    before,
                    one[user : user + one[user - 1]],
                    _KEY,
                    one[mark:],
                    known,
                    hexlify(head[question_id]),
                    after,
                )
                for head, one in zip(heads, admissions, strict=True)
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
            has_id = len(envelope) > 1 and len(envelope[-2]) == QUESTION_ID_LENGTH
            where = slice(QUESTION_ID_LENGTH) if has_id else None
            try:
                self._record(road, where, (envelope[-2] if has_id else b"",), (admission,))
            except JournalUnavailable:
                return None
        self._metrics.decisions[road.count] += 1
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

    def _wire_road(self, asker: Asker, question: WireQuestion, middle: bytes) -> Road | None:
        """The road of questions with these octets between request id and key."""
        try:
            return self._wire_roads[asker, middle]
        except KeyError:
            pass
        if len(self._wire_roads) >= ROADS:
            self._wire_roads.clear()
        domain, address, _, mechanism = question.open_middle(middle)
        road = self._learn(asker, domain, address) if mechanism == b"CURVE" else None
        self._wire_roads[asker, middle] = road
        return road

    def _learn_question(self, sizes: tuple[int, ...]) -> WireQuestion | WirePassword | None:
        if len(self._questions) >= SHAPES:
            self._questions.clear()
        question = self._questions[sizes] = wire_form(sizes)
        return question
