"""The service follows its index: updates and new versions are searched within a second, without a restart."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator

from smar.serving import prometheus
from smar.serving.engine import Engine
from smar.serving.options import DEFAULT
from smar.serving.rulebook import Rulebook
from smar.storage.following import problem

INTERVAL = 0.25
"""Seconds between looks at the index folder."""
logger = logging.getLogger("smar.serving")


async def follow(engine: Engine, name: str = DEFAULT, interval: float = INTERVAL) -> None:
    """Take in what other processes change, for ever. What is damaged is said once; the old index goes on answering."""
    said, unreadable = "", prometheus.UNREADABLE.labels(name)
    while True:
        await asyncio.sleep(interval)
        prometheus.STORE_PROBLEM.labels(name).set(problem(engine.live.folder) is not None)
        if engine.rules is not None:
            await _follow_rules(engine, engine.rules, name)
        try:
            # in a thread: opening a new version reads all of it, and searches go on meanwhile
            if await asyncio.to_thread(engine.refresh):
                prometheus.REFRESHED.inc()
                report(engine, name)
            unreadable.set(0)
            said = ""
        except Exception as error:  # a full disk, a folder that is gone: nothing may end the service
            unreadable.set(1)
            if (told := f"{type(error).__name__}: {error}") != said:
                said = told
                logger.error("the index changed and cannot be read, the old one stays: %s", said)


async def _follow_rules(engine: Engine, rules: Rulebook, name: str) -> None:
    try:
        if await asyncio.to_thread(engine.refresh_rules):
            logger.info("the rules of %s are taken in", rules.path)
    except Exception as error:  # a wrong file is said once, as it is read once
        logger.error("the rules changed and are wrong, those before stay: %s", error)
    prometheus.RULES_UNREADABLE.labels(name).set(rules.problem is not None)


def report(engine: Engine, name: str) -> None:
    """Tell the figures which index is served."""
    prometheus.ITEMS.labels(name).set(len(engine.index))
    digits = re.sub(r"\D", "", engine.index.path.name)
    prometheus.VERSION.labels(name).set(int(digits or 0))


@contextlib.asynccontextmanager
async def following(engine: Engine, name: str = DEFAULT) -> AsyncIterator[None]:
    """Follow while the application runs."""
    report(engine, name)
    task = asyncio.create_task(follow(engine, name))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
