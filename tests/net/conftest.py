"""Modules that say ``BOTH_LOOPS = True`` run on asyncio's own loop and on uvloop."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from zapd.net.loop import loop_factory


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """pytest-asyncio's hook: which loops a test runs on."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if (
        getattr(getattr(item, "module", None), "BOTH_LOOPS", False)
        and loop_factory() is not asyncio.new_event_loop
    ):
        factories["uvloop"] = loop_factory()
    return factories
