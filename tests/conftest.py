import gc
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: waiting threads would take the cores

import pytest
from filelock import FileLock
from hypothesis import settings

from tiny_line import Line, walk

settings.register_profile("smar", deadline=None)  # a busy machine is no bug: time is measured in benchmarks/ only
settings.load_profile("smar")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left with a long one at the end.

    Of them those that do without `line` come before the others: meanwhile another worker makes it.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    lined = {item.path for item in items if "line" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path not in slow, item.path in slow & lined))


def pytest_collection_finish() -> None:
    """Each training collects garbage, which would look through all that the imports have made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The whole line on a tiny generated shop, one for all workers; tests that change a folder work on a copy."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "line"
    with FileLock(f"{root}.lock"):
        return walk(root)
