"""`smar prepare`: tables, pictures, pairs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from smar.core.sections.section import Section

Fit = Literal["pad", "squash", "crop"]
"""How a picture becomes a square: with a white border, stretched, or its middle."""
Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters."""


class ColumnMap(Section):
    """Our column name -> the column's name in the user's table; names not listed are taken as they are."""

    items: dict[str, str] = {}
    clicks: dict[str, str] = {}
    images: dict[str, str] = {}
    queries: dict[str, str] = {}


class SelectSettings(Section):
    """A DuckDB SELECT for each table that is not handed over as it shall be; see `smar.data.selected`."""

    items: str | None = None
    clicks: str | None = None
    images: str | None = None
    queries: str | None = None


class HeaderSettings(Section):
    """Names of the columns of CSV and TSV files that lack the line with them."""

    items: tuple[str, ...] = ()
    clicks: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()


class FetchSettings(Section):
    """How pictures given as URLs are downloaded."""

    timeout: float = Field(10.0, gt=0, description="seconds for one request")
    retries: int = Field(2, ge=0)
    parallel: int = Field(16, ge=1)
    private: bool = Field(False, description="fetch from loopback, private and link-local addresses, too")


AUTO = "auto"
"""`smar prepare` guesses the language by titles and queries."""


def _known_language(name: str | None) -> str | None:
    from Stemmer import algorithms

    if name not in (None, AUTO, *algorithms()):
        raise ValueError(
            f"there is no stemmer for {name!r}; allowed: {', '.join(algorithms())}, {AUTO} for a guess, null for none"
        )
    return name


def _codec(encoding: str | None) -> str | None:
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, ValueError):
        raise ValueError(f"{encoding!r} is no encoding that Python knows, such as utf-8, cp1252 or gb18030") from None
    return encoding


class DataSettings(Section):
    """`smar prepare`: tables -> pairs, qrels, packed pictures."""

    note: str = Field("", description="what kind of data this is; printed on every report")
    columns: ColumnMap = ColumnMap()
    select: SelectSettings = SelectSettings()
    header: HeaderSettings = HeaderSettings()
    types: dict[str, Literal["text", "integer", "decimal", "number", "boolean", "date", "timestamp"]] = Field(
        {}, description="column of the items or queries -> its type, where its values leave it open"
    )
    number_format: Literal["1,234.56", "1.234,56"] | None = Field(
        None, description="how prices and declared numbers are written, where the column leaves it open"
    )
    date_format: str | None = Field(None, description="how times are written, as for strptime, where not as ISO 8601")
    encoding: Annotated[str | None, AfterValidator(_codec)] = Field(
        None, description="encoding of text files that are neither UTF-8 nor UTF-16"
    )
    html: Literal["decode", "keep"] = Field("decode", description="HTML entities and tags in texts and queries")
    text_fields: tuple[str, ...] = Field(("title", "category", "brand"), min_length=1)
    language: Annotated[str | None, AfterValidator(_known_language)] = Field(
        AUTO, description="of the texts: words search and BM25 shorten words by its stemmer"
    )
    drop_columns: tuple[str, ...] = Field((), description="item columns that are not carried into the dataset")
    slice_columns: tuple[str, ...] = Field(("category",), description="item columns whose values are report slices")
    images_root: Path | None = Field(None, description="folder that picture paths start from and may not leave")
    image_size: int = Field(64, ge=16, le=512, description="side of the packed square picture, in pixels")
    pictures_per_item: int = Field(1, ge=1, le=32, description="decodable pictures of an item that are packed at most")
    image_fit: Fit = "pad"
    image_resample: Resample | None = Field(
        None, description="filter over the full picture; when not given bicubic, large pictures in cheap steps"
    )
    thumbnail_size: int = Field(256, ge=0, description="longest side of the picture kept for the page; 0 keeps none")
    max_image_bytes: int = Field(20_000_000, ge=1)
    max_image_pixels: int = Field(64_000_000, ge=1)
    workers: int | None = Field(None, ge=1, description="picture decoding processes; all cores when not given")
    fetch: FetchSettings = FetchSettings()
    memory_limit: str = Field("2GB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")
    test_share: float = Field(0.1, gt=0, lt=1, description="last share of the log's time, when no date is given")
    valid_share: float = Field(0.03, gt=0, lt=1, description="last share of the time before the test period")
    suggest_from: int = Field(
        5, ge=0, description="suggest queries that at least so many shoppers asked; 0 keeps none of the log's queries"
    )
    order_weight: float = Field(2.0, ge=0, description="what an order adds to a click's weight of 1")
    position_bias: bool = Field(True, description="divide clicks by the position's relative click rate")
    max_position_weight: float = Field(5.0, ge=1)
    repeat_pairs: Literal["keep", "drop"] = Field("keep", description="test pairs that were clicked in training, too")
