"""The express road of passwords: PLAIN questions whose answer is remembered, octets in, octets out.

A password is dear to check, so `zapd.auth.cache` remembers each 200 for a while. Here is what that memory looks
like from the wire: all of a question behind its request id (domain, address, identity, user, password) under a
hash with a key for each asker, and beside it the reply and the record's members, made once. An entry is no
longer good than the decision it was made of, and everything goes when anything is forgotten; a question that is
not found walks the whole road, which comes to the same answer.
"""

from __future__ import annotations

import os
from binascii import hexlify
from hashlib import blake2b
from typing import NamedTuple

from zapd.audit.journal import JournalUnavailable
from zapd.auth.authority import Authority
from zapd.auth.backend import Admission
from zapd.server.answers import Answers
from zapd.server.metrics import DecisionMetrics, Slot
from zapd.server.recorder import Recorder, members_of
from zapd.server.wire_question import WirePassword
from zapd.zap import Asker, MalformedRequest, parse_request, question_id, split_envelope
from zapd.zap.request import VERSION
from zapd.zmtp.framing import encode_message
from zapd.zmtp.run import Run

ENTRIES = 32_768
"""Questions that are remembered; beyond it all are learned anew."""

ASKERS = 4096
"""The same for who asks."""

_QUESTION_ID = b',"question_id":"'


class Remembered(NamedTuple):
    """A 200 that may be given again. The first to end sorts first."""

    until: float
    """On the cache's clock."""
    admission: Admission
    before: bytes
    """The journal's members up to the question id."""
    after: bytes
    """Those behind it."""
    slot: Slot
    """Where the metrics count it."""


class RememberedPasswords:
    """Answers PLAIN questions that were answered before."""

    def __init__(self, authority: Authority, recorder: Recorder, metrics: DecisionMetrics) -> None:
        self._authority = authority
        self._recorder = recorder
        self._metrics = metrics
        self._known: dict[bytes, Remembered] = {}
        """By the keyed hash of asker and question."""
        self._hashes: dict[Asker, blake2b] = {}
        """What the hash of each asker's questions begins with; the key dies with the process."""

    def forget(self) -> None:
        """Know nothing any more."""
        self._known.clear()
        self._hashes.clear()

    def answer_run(self, asker: Asker, run: Run, wire: WirePassword) -> Answers:
        """Answer and record all of a run that can be."""
        begin = self._begin(asker).copy
        rows = wire.cut(run.octets)
        heads = [head for head, _ in rows]
        if not wire.is_version_right(heads):
            return Answers([], [], list(run))
        keys: list[bytes] = []
        for _, tail in rows:
            digest = begin()
            digest.update(tail)
            keys.append(digest.digest())
        found = list(map(self._known.get, keys))
        others: list[list[bytes]] = []
        now = self._authority.cache.clock()
        entries = [entry for entry in found if entry is not None]
        if len(entries) < len(found) or min(entries)[0] <= now:  # the soonest to end is the least
            heads, entries = [], []
            for (head, _), key, entry, parts in zip(rows, keys, found, run, strict=True):
                good = entry if entry is not None and entry.until > now else self._learn(asker, key, parts)
                if good is None:
                    others.append(parts)
                else:
                    heads.append(head)
                    entries.append(good)
        if entries and not self._take(entries, heads, wire.question_id):
            return Answers([], [], list(run))
        return Answers(heads, [entry.admission for entry in entries], others)

    def answer(self, asker: Asker, envelope: list[bytes], question: list[bytes]) -> Admission | None:
        """The same for one question, given as the parts behind its request id."""
        digest = self._begin(asker).copy()
        digest.update(encode_message(question))
        key = digest.digest()
        entry = self._known.get(key)
        if entry is None or entry.until <= self._authority.cache.clock():
            entry = self._learn(asker, key, [b"", VERSION, b"", *question])
            if entry is None:
                return None
        asked = question_id(envelope)
        return entry.admission if self._take([entry], [asked], slice(len(asked)) if asked else None) else None

    def _take(self, entries: list[Remembered], heads: list[bytes], question_id: slice | None) -> bool:
        """Record and count these answers; False when they cannot be recorded."""
        if not self._recorder.silent:
            events: list[tuple[bytes, ...]]
            if question_id is None:
                events = [(entry.before, entry.after) for entry in entries]
            else:
                events = [
                    (entry.before, _QUESTION_ID, hexlify(head[question_id]), b'"', entry.after)
                    for head, entry in zip(heads, entries, strict=True)
                ]
            try:
                self._recorder.journal.append_rendered(events)
            except JournalUnavailable:  # the whole road meets the same trouble, and answers 300
                return False
        self._metrics.add([entry.slot for entry in entries])
        self._authority.cache.hits += len(entries)
        return True

    def _begin(self, asker: Asker) -> blake2b:
        """The hash of an asker's question, before its octets."""
        try:
            return self._hashes[asker]
        except KeyError:
            if len(self._hashes) >= ASKERS:
                self.forget()
            digest = self._hashes[asker] = blake2b(key=os.urandom(32), digest_size=32)
            return digest

    def _learn(self, asker: Asker, key: bytes, parts: list[bytes]) -> Remembered | None:
        """Ask the cache itself."""
        split = split_envelope(parts)
        if split is None:
            return None
        try:
            request = parse_request(split[1], asker=asker)
        except MalformedRequest:
            return None
        recollected = self._authority.recollect(request)
        if recollected is None:
            return None
        decision, until = recollected
        members = members_of(request, decision)
        if members is None or not decision.asked:
            return None
        reply = decision.reply
        admission = encode_message((b"200", b"OK", reply.user_id, reply.metadata))
        slot = self._metrics.slot(request.domain, "PLAIN", 200, decision.reason)
        if len(self._known) >= ENTRIES:
            self._known.clear()
        entry = self._known[key] = Remembered(until, admission, *members, slot)
        return entry
