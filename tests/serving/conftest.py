from collections.abc import Iterator
from pathlib import Path

import pytest

from smar.index.build import build_index
from smar.serving.engine import Engine
from tiny_index import write_embeddings
from tiny_service import address, run_service


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    build_index(write_embeddings(root / "embeddings"), root / "index")
    return root / "index"


@pytest.fixture(scope="session")
def engine(index_path: Path) -> Engine:
    return Engine.open(index_path)


@pytest.fixture(scope="session")
def service(index_path: Path) -> Iterator[str]:
    """Address of a real service on a free port; it accepts connections once it prints its address."""
    with run_service(index_path) as process:
        yield address(process)
