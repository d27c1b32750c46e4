"""Pictures decoded in parts: the bytes of one call."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from shop_tables import items, log, picture, settings, write_table

from smar.core.errors import InputError
from smar.data.prepare import prepare, prepare_pictures
from smar.runners.run import Part


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """70 items with none to three pictures: paths in the table, bytes in another one, in another order, some broken."""
    folder = tmp_path_factory.mktemp("tables")
    rows, others = items(70), []
    for n, row in enumerate(rows):
        (folder / f"{n}.png").write_bytes(picture((n, 0, 99), size=(20 + n, 30), kind="PNG"))
        row["image"] = None if n % 7 == 3 else f"{n}.png" if n % 5 else "absent.png"
        made = [picture((k, n, 0), size=(25, 25), kind="JPEG") for k in range(n % 3)]
        others += [{"item_id": row["item_id"], "image": data[: 60 if n % 4 == 0 else None]} for data in made]
    write_table(folder / "items.csv", rows)
    write_table(folder / "images.parquet", others[::-1])
    write_table(folder / "clicks.parquet", log())
    return {"items": str(folder / "items.csv"), "images": str(folder / "images.parquet")} | {
        "clicks": str(folder / "clicks.parquet")
    }


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("most", [1, 3])
def test_parts_and_a_last_call_write_the_dataset_of_one(tmp_path: Path, tables: dict[str, str], most: int) -> None:
    chosen = settings(pictures_per_item=most, thumbnail_size=24)
    prepare(chosen, **tables, out=tmp_path / "one")
    out = tmp_path / "parts"
    made = [prepare_pictures(chosen, Part(number, 3), **tables, out=out) for number in (3, 1, 1)]
    assert made == [True, True, False]
    damaged = out.with_name("parts.pictures") / "part-00000" / "images.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    prepare(chosen, **tables, out=out)
    assert content(out) == content(tmp_path / "one")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one", "parts"]


def test_parts_of_other_tables_settings_or_numbers_are_refused(tmp_path: Path, tables: dict[str, str]) -> None:
    def call(part: Part, **changes: Any) -> None:
        prepare_pictures(settings(**changes), part, **tables, out=tmp_path / "out")

    call(Part(1, 3))
    with pytest.raises(InputError, match=r"parts of 3; this is part 1/4"):
        call(Part(1, 4))
    with pytest.raises(InputError, match=r"other tables or of other settings"):
        call(Part(2, 3), image_size=32)
    with pytest.raises(InputError, match=r"other tables or of other settings"):
        prepare(settings(image_size=32), **tables, out=tmp_path / "out")
    changed = write_table(tmp_path / "items.csv", [{**row, "image": "x.png"} for row in items(70)])
    with pytest.raises(InputError, match=r"other tables or of other settings"):
        prepare(settings(), **{**tables, "items": str(changed)}, out=tmp_path / "out")
    (tmp_path / "mine.pictures").mkdir()
    (tmp_path / "mine.pictures" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"not made by `smar prepare`"):
        prepare_pictures(settings(), Part(1, 3), **tables, out=tmp_path / "mine")
    prepare(settings(), **tables, out=tmp_path / "mine", test_from=datetime(2026, 1, 10))
    assert (tmp_path / "mine.pictures" / "holiday.jpg").exists()
