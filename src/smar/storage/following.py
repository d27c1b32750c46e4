"""A service's copies of indexes follow what is published in their stores; the service itself follows the copies."""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from smar.core.files import write_json
from smar.storage.copies import copy_of, fetched
from smar.storage.folders import StoredFolder

_PROBLEM = "store-problem.json"
logger = logging.getLogger("smar.storage")


def problem(index: Path) -> str | None:
    """Why an index folder does not follow its store now; None where it does, or belongs to none.

    >>> problem(Path("index")) is None
    True
    """
    path = index.absolute().parent / _PROBLEM
    try:
        return str(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def following(urls: Sequence[str], seconds: float) -> Iterator[None]:
    """Copy each new version within `seconds` of its publication, while the block runs; each is verified first.

    A store that does not answer, and a version that is damaged, is said once, and told by `problem`; what was copied
    stays.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=_follow, args=(url, seconds, stop), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=5)  # a store that does not answer holds nobody up


def _follow(url: str, seconds: float, stop: threading.Event) -> None:
    have: int | None = None
    said, place = "", copy_of(url).parent / _PROBLEM
    while True:
        try:
            newest = StoredFolder(url).newest()
            if newest is not None and newest.number != have:
                fetched(url)
                have = newest.number
            place.unlink(missing_ok=True)
            said = ""
        except Exception as error:  # nothing may end the following: a full disk, a store that is gone
            if str(error) != said:
                said = str(error)
                logger.error("the copy of %s stays as it is: %s", url, said)
                with contextlib.suppress(OSError):
                    write_json(place, said)
        if stop.wait(seconds):
            return
