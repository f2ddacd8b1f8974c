"""The ``certificates`` backend: CURVE keys from a folder of public certificates, as czmq and pyzmq write them.

All is answered from memory; the folder is looked at in a thread (`certificate_folder`), and by the kernel's word
where it gives one. Memory is believed for as long as ``max_age`` after the last look that succeeded: a folder that
is gone, or hangs, answers "unavailable" then. So does one that is empty, for a folder that is not mounted looks
just so.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Annotated, ClassVar, Final, Self

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from watchfiles import awatch

from zapd.auth.admission import card_of, encode_admission
from zapd.auth.backend import UNKNOWN, Admission, BackendContext, Card, Outcome, Principal, Question, Verdict
from zapd.auth.grant import encode_shape
from zapd.auth.threaded import Threads
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.store.certificate_file import Certificate, attributes_of, user_of
from zapd.store.rules import check_metadata, check_name
from zapd.zmtp.keys import fingerprint
from zapd_backends.certificate_folder import CertificateFolder, Changes, Said

log = structlog.get_logger(__name__)

PATIENCE: Final = 365 * 86400.0
"""Seconds that a look may take: what it found must not be lost, however late. ``max_age`` says what holds then."""
LISTEN_AGAIN: Final = 5.0
"""Seconds until the kernel is asked again for word of changes, when it gave none."""
RARELY: Final = 3_600_000
"""Milliseconds between two looks of watchfiles, where it can but look as well."""
MAX_LEFT_OUT: Final = 64
"""Names of metadata that the log has told about."""

_AWAY: Final = Verdict(Outcome.UNAVAILABLE, reason="folder_unreadable")
_EMPTY: Final = Verdict(Outcome.UNAVAILABLE, reason="folder_empty")


def _seconds(value: object) -> object:
    found = re.fullmatch(r"(\d{1,9})(ms|s|m|h)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time is written "500ms", "10s", "5m" or "1h"')
    return int(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


class CertificatesSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/certificates.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    path: Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
    user: Annotated[str, Field(min_length=1)] = "file"
    interval: Annotated[float, BeforeValidator(_seconds), Field(ge=0.1, le=60.0)] = 1.0
    max_age: Annotated[float, BeforeValidator(_seconds), Field(ge=1.0, le=86400.0)] = 10.0


class CertificatesBackend:
    """See the module's text; settings and outcomes are in ``docs/backends/certificates.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"CURVE"})

    def __init__(self, name: str, path: Path, settings: CertificatesSettings, context: BackendContext) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.problem = ""
        """What a person should mend; empty when all is well."""
        self._context = context
        self._folder = CertificateFolder(path, self._read)
        self._threads = Threads(name, 1, 1)
        self._admissions: dict[bytes, Admission] = {}
        self._cards: dict[bytes, Card] = {}
        """Those whose names the quick road does not take."""
        self._files = 0
        self._seen = 0.0
        """On `time.monotonic`: when the folder was last looked at; 0 is never."""
        self._unsure_until = 0.0
        self._left_out: set[str] = set()
        self._changed: set[str] = set()
        self._word = asyncio.Event()
        self._moved = asyncio.Event()
        """Another folder stands in the path: the kernel tells of the old one still."""
        self._place: tuple[int, int] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Looks at no folder. Raises `ConfigurationError`."""
        try:
            read = CertificatesSettings.model_validate(dict(settings))
        except ValidationError as error:
            mistakes = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)
            )
            raise ConfigurationError(f"backend.{name}: {mistakes}") from None
        if read.max_age < 2 * read.interval:
            raise ConfigurationError(f"backend.{name}: max_age must be at least twice interval")
        return cls(name, context.base_dir / read.path, read, context)

    def __len__(self) -> int:
        """How many keys are in memory."""
        return len(self._admissions) + len(self._cards)

    async def start(self) -> None:
        """Read every file. Raises `Unavailable` when the folder cannot be read. One that takes longer than an
        attempt may goes on being read, and the next attempt waits for the same."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load())
        try:
            await asyncio.shield(self._loading)
        finally:
            if self._loading.done():
                self._loading = None
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._watch()), loop.create_task(self._listen())]
        log.info("certificates read", backend=self.name, keys=len(self))

    async def check(self, question: Question) -> Verdict:
        """ACCEPT and UNKNOWN; UNAVAILABLE when memory is too old, and for a key that may be in a file that could
        not be read."""
        now = monotonic()
        if not self._seen or now - self._seen > self.settings.max_age:
            return _AWAY
        if not self._files:
            return _EMPTY
        card = self._cards.get(question.key)
        if card is None:
            admission = self._admissions.get(question.key)
            if admission is None:
                return UNKNOWN if now >= self._unsure_until else _unsure(question.key)
            card = card_of(admission)
        user, _, groups, attributes = card
        return Verdict(Outcome.ACCEPT, Principal(user.decode("utf-8"), groups, attributes), "granted")

    def recall(self, keys: Sequence[bytes], _domain: str) -> Sequence[Admission | None]:
        """Those of the keys that the folder holds (`zapd.auth.backend.AnswersFromMemory`)."""
        if not self._seen or monotonic() - self._seen > self.settings.max_age:
            return (None,) * len(keys)
        return list(map(self._admissions.get, keys))

    async def aclose(self) -> None:
        """Look no more, and forget the keys."""
        tasks = [*self._tasks, *([self._loading] if self._loading is not None else [])]
        self._tasks, self._loading = [], None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Unavailable):
                await task
        await self._threads.aclose()
        self._seen = 0.0
        self._admissions, self._cards = {}, {}

    async def refresh(self) -> None:
        """Look at the folder now. Trouble is told in `problem`."""
        try:
            await self._look()
        except Unavailable as trouble:
            self._complain(f"{trouble}; what it held is believed for {self.settings.max_age:g} s")

    async def _load(self) -> None:
        await self._look(whole=True)
        await self._look()  # what changed meanwhile; and what was read is as old as this, not as its beginning

    async def _watch(self) -> None:
        more = False
        while True:
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.interval):
                        await self._word.wait()
            try:
                more = await self._look()
            except Unavailable as trouble:
                more = False
                self._complain(f"{trouble}; what it held is believed for {self.settings.max_age:g} s")
                await asyncio.sleep(self.settings.interval)
            except Exception:  # memory grows old, and is not believed any more
                more = False
                log.exception("looking at a folder of certificates failed", backend=self.name)
                await asyncio.sleep(self.settings.interval)

    async def _listen(self) -> None:
        """Take the kernel's word for files that changed, where it gives one: it is quicker than looking."""
        while True:
            try:
                self._moved.clear()
                async for changes in awatch(
                    self.path,
                    recursive=False,
                    watch_filter=None,
                    debounce=100,
                    step=20,
                    rust_timeout=1000,
                    force_polling=False,  # it would look at every file, again and again: looking is our own affair
                    poll_delay_ms=RARELY,
                    stop_event=self._moved,
                ):
                    self._changed.update(Path(path).name for _, path in changes)
                    self._word.set()
            except (OSError, RuntimeError) as error:
                log.debug("no word of changes; looking must do", backend=self.name, reason=str(error))
                await asyncio.sleep(LISTEN_AGAIN)

    async def _look(self, *, whole: bool = False) -> bool:
        """Look once, and put in force what was found; whether there is more at once. Raises `Unavailable`."""
        self._word.clear()
        names, self._changed = self._changed, set()
        began = monotonic()
        changes = await self._threads.run(partial(self._folder.look, names, whole=whole), PATIENCE)
        self._take(changes, began)
        return changes.more

    def _take(self, changes: Changes, seen: float) -> None:
        for key in changes.gone:
            self._admissions.pop(key, None)
            self._cards.pop(key, None)
        for key, said in changes.put.items():
            if isinstance(said, bytes):
                self._admissions[key] = said
                self._cards.pop(key, None)
            else:
                self._cards[key] = said
                self._admissions.pop(key, None)
        if changes.place != self._place:
            self._place = changes.place
            self._moved.set()
        self._files = changes.files
        self._seen = seen
        self._unsure_until = changes.unsure_until
        if changes.gone or changes.put:
            self._context.forget()
        self._complain(changes.problem)

    def _complain(self, text: str) -> None:
        if text and text != self.problem:
            log.warning("folder of certificates", backend=self.name, problem=text)
        self.problem = text

    def _read(self, name: str, certificate: Certificate) -> Said:
        """What a certificate lets in. In the folder's thread. Raises `InvalidInput`."""
        metadata, wanted = certificate.metadata, self.settings.user
        user = user_of(name) if wanted == "file" else metadata.get(wanted, "")
        if not user:
            raise InvalidInput(f"has no {wanted} in its metadata, which names the user")
        check_name(user)
        attributes, unfit = attributes_of(metadata)
        new = unfit - self._left_out
        if new and len(self._left_out) < MAX_LEFT_OUT:
            self._left_out |= new
            log.warning("metadata that no reply can carry are left out", backend=self.name, names=sorted(new)[:8])
        mark = fingerprint(certificate.key).removeprefix("SHA256:").encode("ascii")
        card: Card = (user.encode("utf-8"), mark, (), tuple(sorted(attributes.items())))
        check_metadata((), card[3])
        admission = encode_admission(card)
        if admission is None:
            encode_shape((), card[3])
            return card
        return admission


def _unsure(key: bytes) -> Verdict:
    # Said of this key alone: that it may be in a file that cannot be read must not open the circuit.
    return Verdict(Outcome.UNAVAILABLE, Principal(fingerprint(key)), "certificate_unreadable")
