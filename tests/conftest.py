import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: waiting threads would take the cores

import pytest
from hypothesis import settings

from tiny_line import Line, walk

settings.register_profile("smar", deadline=None)  # a busy machine is no bug: time is measured in benchmarks/ only
settings.load_profile("smar")


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The whole line on a tiny generated shop; tests that change a folder work on a copy."""
    return walk(tmp_path_factory.mktemp("line"))
