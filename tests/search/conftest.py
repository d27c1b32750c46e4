from pathlib import Path

import pytest

from smar.search.local.build import build_index
from tiny_index import write_embeddings


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embeddings folder; tests that change it work on a copy."""
    return write_embeddings(tmp_path_factory.mktemp("tiny") / "embeddings")


@pytest.fixture(scope="session")
def index_path(embeddings: Path) -> Path:
    """Its index; tests that change it work on a copy."""
    build_index(embeddings, embeddings.parent / "index")
    return embeddings.parent / "index"
