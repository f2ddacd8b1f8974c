"""Backends by name, and one backend's life from start to close."""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.auth_scene import curve, rule, scene

from zapd.auth.backend import BackendContext, Outcome
from zapd.auth.catalog import GROUP, BackendHandle, Catalog, State
from zapd.auth.gate import Keeping
from zapd.auth.hashing import HashPool
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.testing import BackendContract, FakeBackend, FakeHandler, ask, started
from zapd.zap import REFUSED, TRY_AGAIN


@pytest.fixture
async def context(tmp_path):
    pool = HashPool(workers=1)
    yield BackendContext(tmp_path, pool)
    await pool.aclose()


def catalog(**values: str) -> Catalog:
    return Catalog({name: EntryPoint(name, value, GROUP) for name, value in values.items()})


def test_our_own_backends_come_by_the_door_of_strangers():
    """The built-in backends are found among the installed entry points."""
    assert {"passwd", "sql"} <= set(Catalog().names())


def test_only_what_is_named_is_imported():
    """Listing imports nothing: an entry point that cannot be loaded does no harm until it is named."""
    assert catalog(good="zapd.testing:FakeBackend", bad="no.such.module:X").names() == ["bad", "good"]


async def test_a_backend_is_built_from_its_settings(context):
    """A named type is loaded and given its settings; its own mistakes are mistakes of the configuration."""
    found = catalog(fake="zapd.testing:FakeBackend")
    handle = found.build("staff", "fake", {"users": {"ada": "lovelace"}}, context)
    assert handle.state is State.STARTING
    await handle.start()
    assert (await handle.check(ask("ada", b"lovelace"))).outcome is Outcome.ACCEPT
    with pytest.raises(ConfigurationError, match=r"backend\.staff"):
        found.build("staff", "fake", {"colour": "red"}, context)


def test_an_unknown_type_lists_what_there_is():
    """A type that nobody brings is a mistake that names the ones installed."""
    with pytest.raises(ConfigurationError, match=r"'ldpa'; installed are ldap, sql"):
        catalog(ldap="a:b", sql="c:d").build("staff", "ldpa", {}, BackendContext(Path(), None))


@pytest.mark.parametrize("value", ["no.such.module:Backend", "zapd.testing:NoSuchBackend"])
async def test_a_missing_library_disables_the_backend_alone(context, value):
    """A backend whose library is missing is shown as disabled with its reason, and its questions hear 300."""
    handle = catalog(ldap=value).build("staff", "ldap", {}, context)
    await handle.start()
    health = handle.health()
    assert health.state is State.DISABLED
    assert "zapd[ldap]" in health.reason
    assert (await handle.check(ask("ada", b"x"))).outcome is Outcome.UNAVAILABLE
    await handle.aclose()


async def test_a_failed_start_is_shown_and_healed():
    """A backend that fails to start is disabled with its reason, answers 300, and works once it can start."""
    backend = FakeBackend(start_failure=InvalidInput("users.passwd: line 3: no hash"))
    world = await scene(rule("lab", "a"), a=backend)
    handle = world.handles["a"]
    assert (handle.health().state, handle.health().reason) == (State.DISABLED, "users.passwd: line 3: no hash")
    assert await world.said(curve()) == (300, "backend_disabled")
    assert backend.asked == []
    backend.start_failure = None
    async with asyncio.timeout(10):
        while handle.state is not State.RUNNING:
            await asyncio.sleep(0.01)
    assert handle.health().reason == ""
    assert await world.said(curve()) == (400, "unknown_key")
    await handle.aclose()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError("no route"), "no route"),
        (TimeoutError(), "did not start within"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
async def test_each_failure_has_its_reason(failure, reason):
    """Whatever start raises becomes a reason that a person can read."""
    handle = await started(FakeBackend(start_failure=failure))
    assert reason in handle.health().reason
    await handle.aclose()
    assert handle.state is State.CLOSED


async def test_a_reason_is_logged_once():
    """A backend that goes on failing for the same reason does not fill the log."""
    backend = FakeBackend(start_failure=OSError("no route"))
    with capture_logs() as logs:
        handle = await started(backend)
        async with asyncio.timeout(10):
            while backend.started < 3:
                await asyncio.sleep(0.01)
    assert sum("disabled" in line["event"] for line in logs) == 1
    await handle.aclose()


async def test_closing_is_for_good():
    """After aclose the backend is given back once, and every question hears UNAVAILABLE."""
    backend = FakeBackend()
    handle = await started(backend)
    await handle.aclose()
    await handle.aclose()
    assert backend.closed == 1
    assert (await handle.check(ask("ada"))).outcome is Outcome.UNAVAILABLE


async def test_a_backend_that_will_not_close_is_logged():
    """An exception while closing stops nobody."""

    class Sticky(FakeBackend):
        async def aclose(self) -> None:
            raise RuntimeError("stuck")

    handle = await started(Sticky())
    with capture_logs() as logs:
        await handle.aclose()
    assert logs[0]["event"] == "a backend did not close"


async def test_health_counts_and_complains():
    """Health shows how often it was asked, how long it took, and what a running backend complains of."""
    world = await scene()
    world.backends["keys"].problem = "the file is world-readable"
    await world.ask(curve())
    health = world.handles["keys"].health()
    assert (health.asked, health.unavailable, health.open, health.errors) == (1, 0, 0, 0)
    assert health.reason == "the file is world-readable"
    assert health.mean_milliseconds > 0


async def test_tracebacks_are_logged_once_a_second():
    """A backend that fails at every question is counted each time and logged seldom."""
    world = await scene(keeping=Keeping(circuit_failures=0))
    world.backends["keys"].failure = RuntimeError("x")
    with capture_logs() as logs:
        for _ in range(50):
            await world.ask(curve())
    assert world.handles["keys"].errors == 50
    assert 1 <= len(logs) <= 3


def test_a_handle_without_a_backend_asks_nobody():
    """What could not be built has no backend, and answers for all mechanisms: 300, not 400."""
    assert BackendHandle("a", "b", None, reason="x").mechanisms >= {"CURVE", "PLAIN"}


class TestFakeContract(BackendContract):
    """The fake keeps the contract that it stands in for."""

    async def make(self, context):
        return FakeBackend.from_settings("fake", {"users": {"ada": "lovelace"}}, context)

    def accepted(self):
        return ask("ada", b"lovelace")

    def rejected(self):
        return ask("ada", b"byron")

    def unknown(self):
        return ask("eve", b"lovelace")

    def from_memory(self):
        return self.accepted()

    async def break_source(self, context, backend):
        backend.failure = backend.start_failure = Unavailable("as it was told")
        return True

    async def mend_source(self, context, backend):
        backend.failure = backend.start_failure = None
        return True

    async def hang_source(self, context, backend):
        backend.delay = 60.0
        return True


class TestSlowFakeContract(TestFakeContract):
    """The same when each answer takes its time."""

    async def make(self, context):
        backend = await super().make(context)
        backend.delay = 0.002
        return backend

    def from_memory(self):
        return None


async def test_a_fake_handler_does_as_it_is_told():
    """The fake handler answers by domain, slowly or not at all, and remembers what it was asked."""
    handler = FakeHandler(replies={"lab": TRY_AGAIN}, delay=0.001)
    assert await handler.answer(curve()) is TRY_AGAIN
    assert await handler.answer(curve(domain="x")) is REFUSED
    handler.failure = RuntimeError("x")
    with pytest.raises(RuntimeError):
        await handler.answer(curve())
    assert len(handler.asked) == 3


async def test_a_complaint_that_cannot_be_read_hides_nothing():
    """A backend whose complaint itself fails is still shown."""

    class Broken(FakeBackend):
        @property
        def problem(self):
            raise KeyError("x")

        @problem.setter
        def problem(self, _text):
            pass

    assert (await started(Broken(), "it")).health().reason == "KeyError: its own complaint cannot be read"
