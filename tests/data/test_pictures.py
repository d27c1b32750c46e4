import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from shop_tables import items, log, picture, read, rejects, run, settings, write_table

from smar.core.errors import InputError
from smar.data.changes import prepare_changes
from smar.data.dataset import Dataset

RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


def with_images(*images: Any) -> list[dict[str, Any]]:
    return [{**row, "image": image} for row, image in zip(items(len(images)), images, strict=True)]


def colours(folder: Path) -> list[tuple[int, ...] | None]:
    """Colour of each item's packed picture, None where it has none."""
    dataset = Dataset.open(folder / "out")
    return [tuple(dataset.images[row, 8, 8].tolist()) if row >= 0 else None for row in dataset.image_row]


def png(colour: Any, **how: Any) -> bytes:
    return picture(colour, kind="PNG", **how)


def statuses(folder: Path) -> list[str]:
    return [row["image_status"] for row in read(folder, "items.parquet")]


def test_bytes_and_broken_ones_in_between(tmp_path: Path) -> None:
    run(tmp_path, with_images(png("red"), b"<html>", None, png("blue"), png("green")[:60], b""), log())
    assert statuses(tmp_path) == ["ok", "not_an_image", "missing", "ok", "truncated", "corrupt"]
    assert colours(tmp_path) == [RED, None, None, BLUE, None, None]
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.images.shape == (2, 16, 16, 3)
    assert dataset.image_row.tolist() == [0, -1, -1, 1, -1, -1]
    assert isinstance(dataset.images, np.memmap)
    assert "image" not in dataset.items.column_names
    tried = read(tmp_path, "images.parquet")
    assert [(row["item_id"], row["position"], row["status"]) for row in tried] == [
        ("i0", 0, "ok"), ("i1", 0, "not_an_image"), ("i3", 0, "ok"), ("i4", 0, "truncated"), ("i5", 0, "corrupt"),
    ]  # fmt: skip
    assert (tried[0]["width"], tried[0]["height"], tried[0]["error"]) == (40, 30, None)


def test_display_pictures_lie_where_the_items_say(tmp_path: Path) -> None:
    run(tmp_path, with_images(png("red"), None, png("blue", size=(900, 600))), log(), thumbnail_size=64)
    dataset = Dataset.open(tmp_path / "out")
    data = dataset.pictures.read_bytes()
    shown = []
    for row in dataset.items.to_pylist():
        start, length = row["picture_offset"], row["picture_length"]
        shown.append(Image.open(io.BytesIO(data[start : start + length])).size if length else start)
    assert shown == [(40, 30), -1, (64, 43)]
    run(tmp_path, with_images(png("red")), log()[:1] + log()[-2:-1], thumbnail_size=0)
    assert Dataset.open(tmp_path / "out").pictures.stat().st_size == 0
    assert read(tmp_path, "items.parquet")[0]["picture_offset"] == -1


def test_paths_start_at_the_table_or_at_images_root(tmp_path: Path) -> None:
    for folder, colour in (("a", "red"), ("b", "blue"), ("root", "green")):
        (tmp_path / folder / "pictures").mkdir(parents=True)
        (tmp_path / folder / "pictures/1.png").write_bytes(png(colour))
    rows = with_images("pictures/1.png", str(tmp_path / "b/pictures/1.png"), "pictures/none.png", " ")
    path = write_table(tmp_path / "a/items.csv", rows)
    run(tmp_path, str(path), log())
    assert colours(tmp_path) == [RED, None, None, None]
    run(tmp_path, str(path), log(), images_root=tmp_path)
    assert colours(tmp_path) == [None, BLUE, None, None]
    run(tmp_path, str(path), log(), images_root=tmp_path / "root")
    assert colours(tmp_path) == [GREEN, None, None, None]
    run(tmp_path, str(path), log(), images_root=tmp_path / "b")
    assert colours(tmp_path) == [BLUE, BLUE, None, None]
    assert [row["status"] for row in read(tmp_path, "images.parquet")] == ["ok", "ok", "missing"]
    parts = [write_table(tmp_path / f"{part}/more-{part}.csv", [row]) for part, row in zip("ab", rows, strict=False)]
    run(tmp_path, str(tmp_path / "*/more-*.csv"), log(), images=())
    assert len(parts) == 2
    assert colours(tmp_path) == [RED, BLUE]


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "pictures/../../secret.png",
        "{outside}/secret.png",
        "{outside}/shop/../secret.png",
        "link.png",
        "{outside}/shop/link.png",
        "linked/secret.png",
        "../shop-2/secret.png",
    ],
)
def test_no_path_leads_out_of_the_root(tmp_path: Path, path: str, rooted: bool) -> None:
    """Where a table comes from suppliers, it must not make the shop read its own files."""
    for folder in ("shop/pictures", "shop-2"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("secret.png", "shop-2/secret.png"):
        (tmp_path / file).write_bytes(png("red"))
    (tmp_path / "shop/pictures/1.png").write_bytes(png("blue"))
    (tmp_path / "shop/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "shop/linked").symlink_to("..")
    rows = with_images(path.format(outside=tmp_path), "pictures/../pictures/1.png")
    options = {"images_root": tmp_path / "shop"} if rooted else {}
    summary = run(tmp_path, str(write_table(tmp_path / "shop/items.csv", rows)), log(), **options)
    first, _ = read(tmp_path, "images.parquet")
    assert colours(tmp_path) == [None, BLUE]
    assert first["status"] == "fetch_failed"
    assert "set data.images_root" in first["error"]
    named = repr(path.format(outside=tmp_path))
    assert f"pictures: 1 fetch_failed: {first['error']}; for example {named} of item 'i0'" in summary.notes


def test_links_that_stay_below_the_root_are_followed(tmp_path: Path) -> None:
    """The root may be a link itself, and lie below one."""
    shop, alias = tmp_path / "real/shop", tmp_path / "alias"
    shop.mkdir(parents=True)
    alias.symlink_to("real")
    (shop / "1.png").write_bytes(png("blue"))
    (shop / "link.png").symlink_to("1.png")
    (shop / "loop.png").symlink_to("loop.png")
    rows = with_images("link.png", str(shop / "1.png"), str(alias / "shop/link.png"), "loop.png", "nul\0.png")
    write_table(shop / "items.parquet", rows)
    for options in ({}, {"images_root": alias / "shop"}):
        run(tmp_path, str(alias / "shop/items.parquet"), log(), **options)
        assert colours(tmp_path) == [BLUE, BLUE, BLUE, None, None]
        assert statuses(tmp_path)[3:] == ["missing", "missing"]


def test_the_reasons_of_most_refusals_are_notes(tmp_path: Path) -> None:
    summary = run(tmp_path, with_images("/a.png", "ftp://a/b.png", "../a.png", None, "gs://a/b", "b.png"), log())
    root = tmp_path.resolve()
    advice = "set data.images_root to a folder that holds it (relative paths then start there)"
    assert [note for note in summary.notes if note.startswith("pictures")] == [
        f"pictures: 2 fetch_failed: leads out of {root}, links followed: {advice}; for example '/a.png' of item 'i0'",
        "pictures: 1 fetch_failed: ftp: only http and https are fetched; for example 'ftp://a/b.png' of item 'i1'",
        "pictures: 1 fetch_failed: gs: only http and https are fetched; for example 'gs://a/b' of item 'i4'",
        f"pictures: 1 missing: No such file or directory; for example 'b.png' below {root} of item 'i5'",
        "pictures: 1 items name none, for example 'i3'",
    ]


def test_reasons_are_counted_whatever_sizes_they_name_and_only_the_most_frequent_told(tmp_path: Path) -> None:
    pages = [b"<html>" + bytes(n) for n in range(5)]
    more = [{"item_id": f"i{n}", "image": f"{scheme}://x"} for n, scheme in enumerate("abcdefghij")]
    summary = run(tmp_path, with_images(*pages, *[None] * 5), log(), images=more)
    notes = [note for note in summary.notes if note.startswith("pictures")]
    assert len(notes) == 9
    assert notes[0].startswith("pictures: 5 not_an_image: 6 bytes of unknown content; allowed: JPEG")
    assert notes[0].endswith("; for example the 6 bytes of item 'i0'")
    assert notes[-1] == "pictures: 3 for 3 other reasons, which images.parquet lists"


def test_a_wrong_images_root_is_one_sentence(tmp_path: Path) -> None:
    summary = run(tmp_path, with_images("a.png", "b.png", None, None), log(), images_root=tmp_path / "elsewhere")
    first, second, _ = [note for note in summary.notes if note.startswith("pictures")]
    assert first.startswith(f"pictures: none of the 2 files is there. Paths start at {tmp_path / 'elsewhere'}: where ")
    assert second.startswith("pictures: 2 missing: No such file or directory; for example 'a.png' below")


def test_an_update_says_why_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(tmp_path / "shop/items.csv", with_images("../a.png", None))
    dataset, _, _ = prepare_changes(settings(), [str(table)], [], tmp_path / "update")
    assert dataset.manifest.image_status["fetch_failed"] == 1
    assert "pictures: 1 fetch_failed: leads out of" in capsys.readouterr().err


@pytest.mark.parametrize("start", [b"", b"P2\n5 5\n255\n", b"P3\n5 ", b"BM", b"BM" + bytes(12), b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_picture_leaves_no_byte(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "passwd").write_bytes(start + b"hunter2 " * 40)
    run(tmp_path, with_images("passwd"), log())
    assert statuses(tmp_path)[0] != "ok"
    number = str(int.from_bytes(b"hunt", "little"))  # as Pillow words a field of a header
    (tried,) = read(tmp_path, "images.parquet")
    assert not any(part in tried["error"] for part in ("hunt", "er2", number))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


def test_the_first_decodable_picture_of_a_list_is_packed(tmp_path: Path) -> None:
    lists = [[png("red"), png("blue")], [b"junk", png("blue"), png("red")], [b"junk", b""], [], [None, png("green")]]
    summary = run(tmp_path, with_images(*lists), log())
    assert colours(tmp_path) == [RED, BLUE, None, None, GREEN]
    assert statuses(tmp_path) == ["ok", "ok", "not_an_image", "missing", "ok"]
    tried = [(row["item_id"], row["position"], row["status"]) for row in read(tmp_path, "images.parquet")]
    assert tried == [
        ("i0", 0, "ok"), ("i1", 0, "not_an_image"), ("i1", 1, "ok"), ("i2", 0, "not_an_image"), ("i2", 1, "corrupt"),
        ("i4", 0, "missing"), ("i4", 1, "ok"),
    ]  # fmt: skip
    assert (summary.counts["pictures"], summary.counts["pictures_tried"]) == (9, 7)


def test_several_pictures_of_an_item_are_packed(tmp_path: Path) -> None:
    lists = [[png("red"), b"junk", png("blue"), png("green")], [b"junk"], [], [png("green"), png("red")]]
    table = [("i2", png("blue")), ("i1", png("red")), ("i3", b"junk"), ("i1", png("green")), ("i1", png("blue"))]
    more = [{"item_id": item, "image": image} for item, image in table]
    summary = run(tmp_path, with_images(*lists), log(), images=more, pictures_per_item=2)
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.image_row.tolist() == [[0, 1], [2, 3], [4, -1], [5, 6]]
    shown = [tuple(dataset.images[row, 8, 8].tolist()) for row in range(7)]
    assert shown == [RED, BLUE, RED, GREEN, BLUE, GREEN, RED]
    assert statuses(tmp_path) == ["ok"] * 4
    tried = [(row["item_id"], row["position"], row["status"]) for row in read(tmp_path, "images.parquet")]
    assert tried == [
        ("i0", 0, "ok"), ("i0", 1, "not_an_image"), ("i0", 2, "ok"), ("i1", 0, "not_an_image"), ("i1", 1, "ok"),
        ("i1", 2, "ok"), ("i2", 0, "ok"), ("i3", 0, "ok"), ("i3", 1, "ok"),
    ]  # fmt: skip
    counts = summary.counts
    assert (counts["pictures"], counts["pictures_tried"], counts["images_packed"]) == (12, 9, 7)
    assert (counts["items_with_several_pictures"], counts["pictures_broken"]) == (3, 2)
    pages = [row["picture_length"] for row in read(tmp_path, "items.parquet")]
    assert dataset.pictures.stat().st_size == sum(pages)  # only the first good picture is kept for the page


@given(st.lists(st.lists(st.booleans(), max_size=5), min_size=4, max_size=5), st.integers(1, 4))
@hypothesis_settings(max_examples=15)
def test_packing_equals_a_loop_over_items(good: list[list[bool]], most: int) -> None:
    shade = iter(range(1, 100))
    shades = [[next(shade) if ok else None for ok in own] for own in good]
    lists = [[b"junk" if grey is None else png((grey,) * 3) for grey in own] for own in shades]
    expected = [[grey for grey in own if grey is not None][:most] for own in shades]
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), with_images(*lists), log(), pictures_per_item=most)
        dataset = Dataset.open(Path(folder) / "out")
        rows = [[row for row in np.atleast_1d(own).tolist() if row >= 0] for own in dataset.image_row]
        assert [[int(dataset.images[row, 8, 8, 0]) for row in own] for own in rows] == expected
        assert len(dataset.images) == sum(map(len, expected))


def test_images_tables_add_to_the_items_own(tmp_path: Path) -> None:
    table = [("i1", png("blue")), ("i0", png("blue")), ("i2", b"junk"), ("i9", png("red")), (None, png("red")),
             ("i2", png("green")), ("i3", None)]  # fmt: skip
    rows = with_images(png("red"), None, None, None)
    for part, half in enumerate((table[:3], table[3:])):
        write_table(tmp_path / "parts" / f"{part}.parquet", [{"item_id": i, "image": image} for i, image in half])
    run(tmp_path, rows, log(), images=str(tmp_path / "parts"))
    assert colours(tmp_path) == [RED, BLUE, GREEN, None]
    assert rejects(tmp_path) == [
        ("images", 3, "i9", "unknown item"), ("images", 4, "", "no item_id"), ("images", 6, "i3", "no image"),
    ]  # fmt: skip


def test_images_table_without_pictures_in_the_catalogue(tmp_path: Path) -> None:
    table = [
        {"sku": "i2", "jpg": {"bytes": png("red"), "path": None}},
        {"sku": "i0", "jpg": {"bytes": None, "path": "x.png"}},
    ]
    (tmp_path / "x.png").write_bytes(png("blue"))
    run(tmp_path, items(3), log(), images=table, columns={"images": {"item_id": "sku", "image": "jpg"}})
    assert colours(tmp_path) == [BLUE, None, RED]


def test_no_pictures_at_all(tmp_path: Path) -> None:
    run(tmp_path, items(), log())
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.images.shape == (0, 16, 16, 3)
    assert set(statuses(tmp_path)) == {"missing"}
    assert read(tmp_path, "images.parquet") == []
    run(tmp_path, with_images(b"junk", b"junk"), log())
    assert Dataset.open(tmp_path / "out").images.shape == (0, 16, 16, 3)


def test_image_columns_of_a_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'image' has type BIGINT. Allowed: a path or URL"):
        run(tmp_path, with_images(1, 2), log())


def test_worker_count_does_not_show(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [png("red") if n % 5 else b"junk" for n in range(150)]
    images[7] = picture("blue", (700, 500))
    lists = [[image, png("blue")] if rng.random() < 0.5 else [image] for image in images]
    for workers in (1, 2):
        run(tmp_path / str(workers), with_images(*lists), log(), workers=workers)
    for name in ("images.npy", "pictures.bin", "items.parquet", "images.parquet"):
        assert (tmp_path / "1/out" / name).read_bytes() == (tmp_path / "2/out" / name).read_bytes(), name
