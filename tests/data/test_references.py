"""What a cell of a table says of pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_tables import items, log, picture, read, run, write_table

from smar.data.fetch import Url
from smar.data.images import Unusable
from smar.data.references import MANY, references, source

NOWHERE = Path("/nonexistent")
WHOLE = [
    "a.jpg",
    "a b.jpg",
    "my photo, front.jpg",
    "red; small.jpg",
    "red|small.jpg",
    "https://x/w_300,h_300/a.jpg",
    "https://x/image/fetch/w_300,q_80/https://y/a.jpg",
    "https://x/a.jpg;v=2",
    "https://x/a.jpg?s=1,2&t=3|4",
    "https://x/my photo.jpg",
    "img, front",
    "sofa",
    "data:image/png;base64,iVBORw0KGgo=",
    "[1].jpg",
    "[draft] a.jpg",
    '"',
    "[1, 2]",
    "[" * 5000 + "]",
    "a.jpg,b.html",
    "https://x/a.jpg|b.jpg",
]
SEVERAL = {
    "a.jpg|b.jpg": ["a.jpg", "b.jpg"],
    "a.jpg,b.webp": ["a.jpg", "b.webp"],
    "a.jpg, b.JPEG ,c.png": ["a.jpg", "b.JPEG", "c.png"],
    "a.jpg;b.jpg;": ["a.jpg", "b.jpg"],
    "a.jpg,": ["a.jpg"],
    "|a.jpg||b.jpg": ["a.jpg", "b.jpg"],
    "a.jpg b.jpg\tc.jpg": ["a.jpg", "b.jpg", "c.jpg"],
    "a b.jpg, c d.jpg": ["a b.jpg", "c d.jpg"],
    "a.jpg\r\nb.jpg\n": ["a.jpg", "b.jpg"],
    "a.jpg, b.jpg; c.jpg": ["a.jpg", "b.jpg", "c.jpg"],
    "img\\a.jpg|img\\b.jpg": ["img\\a.jpg", "img\\b.jpg"],
    "https://x/a.jpg,https://x/b": ["https://x/a.jpg", "https://x/b"],
    "https://x/w_3,h_3/a.jpg, https://x/w_3,h_3/b.jpg": ["https://x/w_3,h_3/a.jpg", "https://x/w_3,h_3/b.jpg"],
    "https://x/w_3,h_3/a.jpg,https://x/w_3,h_3/b.jpg;": ["https://x/w_3,h_3/a.jpg", "https://x/w_3,h_3/b.jpg"],
    "https://x/a?1|https://x/a?2": ["https://x/a?1", "https://x/a?2"],
    '["a.jpg", "b c.jpg", null, " "]': ["a.jpg", "b c.jpg"],
    "['a.jpg', 'b,c.jpg', None]": ["a.jpg", "b,c.jpg"],
    '"a.jpg|b.jpg"': ["a.jpg", "b.jpg"],
    '"a.jpg"': ["a.jpg"],
    "[]": [],
    " ": [],
}


@pytest.mark.parametrize("text", WHOLE)
def test_names_and_addresses_are_not_divided(text: str) -> None:
    assert references(text, NOWHERE) == [text]


@pytest.mark.parametrize("text", SEVERAL)
def test_several_in_one_cell(text: str) -> None:
    assert references(text, NOWHERE) == SEVERAL[text]


@given(st.lists(st.text("ab/ ,;|.-_é红", min_size=1).map(lambda name: name.strip(" ,;|")).filter(bool)))
def test_a_json_list_gives_back_what_was_put_in(names: list[str]) -> None:
    assert references(json.dumps(names), NOWHERE) == names


@given(st.text('ab.jpg|;, \n[]"\\:/'))
def test_nothing_is_lost_or_made_up(text: str) -> None:
    found = references(text, NOWHERE)
    assert all(name == name.strip() and name for name in found)
    assert bool(found) == bool(text.strip()) or text.strip()[0] in '["' or not text.strip("|;, \n")
    if not any(mark in text.strip() for mark in '|;,[" \t\r\n'):
        assert found == ([text.strip()] if text.strip() else [])
    assert '"' in MANY


def test_the_name_of_a_file_is_never_divided(tmp_path: Path) -> None:
    (tmp_path / "a.jpg,b.jpg").write_bytes(picture())
    assert references("a.jpg,b.jpg", tmp_path) == ["a.jpg,b.jpg"]
    assert references("a.jpg,c.jpg", tmp_path) == ["a.jpg", "c.jpg"]
    assert len(references("a.jpg," * 500, tmp_path)) == 500  # too long to be a name


def test_ways_to_write_a_path(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for name in ("img/a.jpg", "img/b c.jpg", "100%.jpg", "x\\y.jpg"):
        (tmp_path / name).write_bytes(b"")
    for written, there in {
        "img\\a.jpg": "img/a.jpg",
        ".\\img\\a.jpg": "img/a.jpg",
        "img%2Fa.jpg": "img/a.jpg",
        "img\\b%20c.jpg": "img/b c.jpg",
        "100%.jpg": "100%.jpg",
        "x\\y.jpg": "x\\y.jpg",
        (tmp_path / "img/b c.jpg").as_uri(): "img/b c.jpg",
        "img\\none.jpg": "img/none.jpg",
    }.items():
        assert source(written, tmp_path) == tmp_path / there, written
    for refused in ("..\\a.jpg", "%2e%2e/a.jpg/../..\\..\\b.jpg", "file:///etc/passwd", "\\etc\\passwd"):
        found = source(refused, tmp_path)
        assert isinstance(found, Unusable), refused
        assert (found.status, "leads out of" in found.reason) == ("fetch_failed", True)
    for other in ("C:\\shop\\a.jpg", "c:/shop/a.jpg", "\\\\server\\share\\a.jpg"):
        found = source(other, tmp_path)
        assert isinstance(found, Unusable)
        assert (found.status, found.reason.partition(":")[0]) == (
            "fetch_failed", "a path of a Windows drive or server"
        )  # fmt: skip
    assert isinstance(source("file://server/share/a.jpg", tmp_path), Unusable)
    assert source("HTTPS://x/a.jpg", tmp_path) == Url("HTTPS://x/a.jpg")


def test_an_escaped_way_out_stays_shut(tmp_path: Path) -> None:
    """Whatever way a path is written, what is opened lies below the root."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "secret.jpg").write_bytes(picture())
    for written in ("..\\secret.jpg", "%2e%2e%2fsecret.jpg", "..%5csecret.jpg", (tmp_path / "secret.jpg").as_uri()):
        found = source(written, tmp_path / "shop")
        assert not isinstance(found, Path) or found.is_relative_to(tmp_path / "shop"), written
        assert not isinstance(found, Path) or not found.exists()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table(tmp_path: Path, suffix: str) -> None:
    """Cells with several pictures in either table, through `prepare`; the first that can be decoded is used."""
    for name in ("a.jpg", "img/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(kind="PNG" if name.endswith("png") else "JPEG"))
    cells = ["none.jpg|a.jpg", "a.jpg,img\\b.png", '["img/b.png", "a.jpg"]', "", "a.jpg"]
    rows = [{**row, "image": cell} for row, cell in zip(items(5), cells, strict=True)]
    more: list[dict[str, Any]] = [{"item_id": "i3", "image": "none.jpg a.jpg"}, {"item_id": "i4", "image": "[]"}]
    table, images = write_table(tmp_path / f"items{suffix}", rows), write_table(tmp_path / f"images{suffix}", more)
    summary = run(tmp_path, str(table), log(), images=str(images), pictures_per_item=2)
    tried = [(row["item_id"], row["position"], row["status"]) for row in read(tmp_path, "images.parquet")]
    assert tried == [
        ("i0", 0, "missing"), ("i0", 1, "ok"), ("i1", 0, "ok"), ("i1", 1, "ok"), ("i2", 0, "ok"), ("i2", 1, "ok"),
        ("i3", 0, "missing"), ("i3", 1, "ok"), ("i4", 0, "ok"),
    ]  # fmt: skip
    assert [row["image_status"] for row in read(tmp_path, "items.parquet")] == ["ok"] * 5
    assert f"pictures: 2 missing: No such file or directory; for example 'none.jpg' below {tmp_path} of item 'i0'" in (
        summary.notes
    )
    (reject,) = [row for row in read(tmp_path, "rejects.parquet") if row["table"] == "images"]
    assert (reject["key"], reject["reason"]) == ("i4", "no image")


def test_json_lines_with_texts_and_lists(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    cells = ["a.jpg", ["none.jpg", "a.jpg"], None, "none.jpg|a.jpg"]
    path = write_table(tmp_path / "items.jsonl", [{**r, "image": c} for r, c in zip(items(4), cells, strict=True)])
    run(tmp_path, str(path), log())
    assert [row["image_status"] for row in read(tmp_path, "items.parquet")] == ["ok", "ok", "missing", "ok"]
