"""What the URL of an engine may be, and what is said where its driver is not installed."""

import doctest
import sys

import pytest

from smar.core.errors import InputError
from smar.search import engines, rarity, stored
from smar.search.engines import ENGINES, open_engine


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("postgresql://host/shop", "psycopg", "postgres"),
        ("milvus://host/shop", "pymilvus", "milvus"),
        ("lance:///srv/shop", "lance", "lance"),
    ],
)
def test_a_driver_that_is_missing_is_named(url: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(sys.modules, f"smar.search.{ENGINES[url.partition(':')[0]][0]}", raising=False)
    with pytest.raises(InputError, match=rf"needs {driver}.*: pip install 'smar\[{extra}\]'"):
        open_engine(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/shop", "mysql:// is no engine that smar knows; there are postgresql://"),
        ("postgresql://host/db?table=Shop;", "give a name of a-z, 0-9 and _"),
        ("milvus://host:19530/", "end the URL with one"),
        ("milvus:///srv/shop", "a file of milvus-lite ends with .db"),
        ("lance:///srv/", "give a name at its end"),
    ],
)
def test_a_wrong_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        open_engine(url)
    assert said in str(error.value)


@pytest.mark.parametrize("module", [engines, rarity, stored])
def test_examples_of_the_docstrings(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted
    assert not found.failed
