import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: waiting threads would take the cores

import pytest

from tiny_line import Line, walk


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The whole line on a tiny generated shop; tests that change a folder work on a copy."""
    return walk(tmp_path_factory.mktemp("line"))
