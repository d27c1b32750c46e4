"""`smar bulk`: the catalogue as files for an engine that a shop runs already.

Each folder holds the items with their wide vector ``[S_m ; S_t]``, the mapping or schema with the inner product as its
metric, a script that loads both, and a query. The servers were not run: files follow the vendors' published formats
(docs/engines.md names them). A query's vector comes from ``POST /v1/encode``.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError, one_of
from smar.core.files import StrPath, atomic
from smar.core.progress import track
from smar.search.column_values import Kind, kind_of
from smar.search.embeddings import INTERNAL_COLUMNS, Embeddings
from smar.search.local import plain
from smar.search.ranked import Vectors

VECTOR = "smar_vector"
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122's for names
_TOGETHER = 500  # items of one request
_MOST = {"elasticsearch": 4096, "opensearch": 16_000}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bulk:
    """What was written: how many items, and the names of the files."""

    items: int
    files: tuple[str, ...]


def write_bulk(embeddings: StrPath, to: str, out: StrPath) -> Bulk:
    """Write the items of an embeddings folder for the engine `to` into the folder `out`.

    Raises:
        InputError: the engine is unknown, the embeddings are damaged, or the engine cannot hold so long a vector.
    """
    if to not in WRITERS:
        raise one_of(to, WRITERS, "--to")
    source, out = Embeddings(embeddings), Path(out)
    dim = 2 * source.manifest.dim
    if dim > _MOST.get(to, dim):
        raise InputError(f"[S_m ; S_t] has {dim} numbers; {to} takes at most {_MOST[to]:,}.")
    out.mkdir(parents=True, exist_ok=True)
    columns = [field for field in source.payload.schema if field.name not in INTERNAL_COLUMNS]
    files = WRITERS[to](source, columns, dim, out)
    return Bulk(source.manifest.items, tuple(files))


def _blocks(source: Embeddings, columns: list[pa.Field]) -> Iterator[tuple[pa.Table, Vectors]]:
    start, payload = 0, source.payload.select([field.name for field in columns])
    for shard in track(source.shards(), "writing", len(source.manifest.shards)):
        for wide in shard.joined():
            yield payload.slice(start, len(wide)), wide
            start += len(wide)


def _items(source: Embeddings, columns: list[pa.Field]) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Each item's columns as JSON has them, without those that it lacks, and its wide vector."""
    for part, wide in _blocks(source, columns):
        for item, vector in zip(part.to_pylist(), wide.tolist(), strict=True):
            yield {name: shown for name, value in item.items() if (shown := plain(value)) is not None}, vector


def _files(out: Path, texts: dict[str, str]) -> list[str]:
    for name, text in texts.items():
        with atomic(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            (out / name).chmod(0o755)
    return list(texts)


def _lines(out: Path, name: str, write: Callable[[TextIO], None]) -> str:
    with atomic(out / name) as partial, partial.open("w", encoding="utf-8") as file:
        write(file)
    return name


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _parquet(source: Embeddings, columns: list[pa.Field], dim: int, out: Path) -> list[str]:
    """One file; the vector is a list of a fixed size."""
    schema = pa.schema([*columns, pa.field(VECTOR, pa.list_(pa.float32(), dim))])
    with atomic(out / "items.parquet") as partial, pq.ParquetWriter(partial, schema) as file:
        for part, wide in _blocks(source, columns):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(wide.ravel(), pa.float32()), dim)
            file.write_table(pa.table([*part.columns, vectors], schema=schema))
    query = f"""-- DuckDB. VECTOR is the answer of POST /v1/encode; the score is the inner product itself.
SELECT item_id, array_inner_product({VECTOR}::FLOAT[{dim}], VECTOR::FLOAT[{dim}]) AS score
FROM 'items.parquet' ORDER BY score DESC LIMIT 10;
"""
    return ["items.parquet", *_files(out, {"query.sql": query})]


_LUCENE = {
    Kind.TEXT: {"type": "keyword", "ignore_above": 8191},
    Kind.NUMBER: {"type": "double"},
    Kind.FLAG: {"type": "boolean"},
    Kind.MOMENT: {"type": "date"},
    Kind.OTHER: {"type": "object", "enabled": False},
}


def _lucene_fields(columns: list[pa.Field]) -> dict[str, Any]:
    """Mappings of the columns; a list is mapped as its entries are."""
    fields: dict[str, Any] = {}
    for field in columns:
        kind, own = kind_of(field.type), field.type
        if kind is Kind.LIST:
            kind = kind_of(own := own.value_type)
        if kind is not Kind.EMPTY:
            whole = kind is Kind.NUMBER and pa.types.is_integer(own)
            fields[field.name] = {"type": "long"} if whole else _LUCENE[kind]
    return fields


_LOAD_LUCENE = """#!/bin/sh
# Loads the items into a new index: URL of the server, name of the index. HEADERS may hold curl's -H or -u options.
set -eu
url=${1:-http://localhost:9200} index=${2:-smar}
here=$(dirname "$0")
curl -fsS ${HEADERS:-} -X PUT "$url/$index" -H 'Content-Type: application/json' --data-binary "@$here/index.json"
for part in "$here"/items-*.ndjson; do
  curl -fsS ${HEADERS:-} -X POST "$url/$index/_bulk?filter_path=errors,items.*.error" \\
    -H 'Content-Type: application/x-ndjson' --data-binary "@$part" | tee /dev/stderr | grep -q '"errors":false'
done
curl -fsS ${HEADERS:-} -X POST "$url/$index/_refresh"
"""
_SCORE_LUCENE = (
    "the score s is 1 + p of an inner product p of 0 or more, and 1 / (1 - p) of a negative one: "
    "p = s - 1 where s is 1 or more, else 1 - 1 / s"
)


def _lucene(source: Embeddings, columns: list[pa.Field], out: Path, index: Any, query: Any) -> list[str]:
    def write(items: list[tuple[dict[str, Any], list[float]]]) -> Callable[[TextIO], None]:
        def lines(file: TextIO) -> None:
            for item, vector in items:
                file.write(_json({"index": {"_id": item["item_id"]}}) + "\n")
                file.write(_json(item | {VECTOR: vector}) + "\n")

        return lines

    names, waiting = list[str](), list[tuple[dict[str, Any], list[float]]]()
    for entry in _items(source, columns):
        waiting.append(entry)
        if len(waiting) == _TOGETHER:
            names.append(_lines(out, f"items-{len(names):05d}.ndjson", write(waiting)))
            waiting = []
    if waiting:
        names.append(_lines(out, f"items-{len(names):05d}.ndjson", write(waiting)))
    texts = {
        "index.json": json.dumps(index, indent=2, ensure_ascii=False) + "\n",
        "query.json": json.dumps(query, indent=2) + "\n",
        "score.txt": f"In what POST /INDEX/_search answers, {_SCORE_LUCENE}.\n",
        "load.sh": _LOAD_LUCENE,
    }
    return [*names, *_files(out, texts)]


def _elasticsearch(source: Embeddings, columns: list[pa.Field], dim: int, out: Path) -> list[str]:
    vector = {"type": "dense_vector", "dims": dim, "index": True, "similarity": "max_inner_product"}
    graph = {"type": "hnsw", "m": 16, "ef_construction": 200}
    index = {"mappings": {"properties": _lucene_fields(columns) | {VECTOR: vector | {"index_options": graph}}}}
    knn = {"field": VECTOR, "query_vector": "VECTOR of POST /v1/encode", "k": 10, "num_candidates": 200}
    filter = {"filter": {"term": {"item_id": "or any other filter"}}}
    return _lucene(source, columns, out, index, {"knn": knn | filter, "_source": {"excludes": [VECTOR]}})


def _opensearch(source: Embeddings, columns: list[pa.Field], dim: int, out: Path) -> list[str]:
    graph = {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"}
    parameters = {"parameters": {"m": 16, "ef_construction": 200}}
    vector = {"type": "knn_vector", "dimension": dim, "method": graph | parameters}
    index = {
        "settings": {"index": {"knn": True}},
        "mappings": {"properties": _lucene_fields(columns) | {VECTOR: vector}},
    }
    asked = {"vector": "VECTOR of POST /v1/encode", "k": 10, "filter": {"term": {"item_id": "or any other filter"}}}
    query = {"size": 10, "query": {"knn": {VECTOR: asked}}, "_source": {"excludes": [VECTOR]}}
    return _lucene(source, columns, out, index, query)


_LOAD_QDRANT = """#!/bin/sh
# Loads the items into a new collection: URL of the server, name of the collection.
set -eu
url=${1:-http://localhost:6333} name=${2:-smar}
here=$(dirname "$0")
send() { curl -fsS ${HEADERS:-} -X PUT "$url/collections/$name$1" -H 'Content-Type: application/json' \\
  --data-binary "@$2"; }
send "" "$here/collection.json"
for part in "$here"/points-*.json; do send "/points?wait=true" "$part"; done
for field in "$here"/field-*.json; do send "/index?wait=true" "$field"; done
"""
_QDRANT = {Kind.TEXT: "keyword", Kind.NUMBER: "float", Kind.FLAG: "bool", Kind.MOMENT: "datetime"}


def _qdrant(source: Embeddings, columns: list[pa.Field], dim: int, out: Path) -> list[str]:
    """Ids are UUIDs of the items' ids; a score is the inner product itself."""
    names, points = list[str](), list[dict[str, Any]]()

    def flush() -> None:
        names.extend(_files(out, {f"points-{len(names):05d}.json": _json({"points": points})}))
        points.clear()

    for item, vector in _items(source, columns):
        points.append({"id": str(uuid.uuid5(_NAMESPACE, item["item_id"])), "vector": vector, "payload": item})
        if len(points) == _TOGETHER:
            flush()
    if points:
        flush()
    collection = {"vectors": {"size": dim, "distance": "Dot"}}
    texts = {"collection.json": json.dumps(collection, indent=2) + "\n", "load.sh": _LOAD_QDRANT}
    for at, field in enumerate(columns):
        kind = kind_of(field.type)
        if (schema := _QDRANT.get(kind_of(field.type.value_type) if kind is Kind.LIST else kind)) is not None:
            entry = {"field_name": field.name, "field_schema": schema}
            texts[f"field-{at:03d}.json"] = json.dumps(entry, ensure_ascii=False) + "\n"
    query = {
        "query": "VECTOR of POST /v1/encode",
        "limit": 10,
        "with_payload": True,
        "params": {"hnsw_ef": 200},
        "filter": {"must": [{"key": "item_id", "match": {"value": "or any other filter"}}]},
    }
    texts["query.json"] = json.dumps(query, indent=2) + "\n"
    return [*names, *_files(out, texts)]


_LOAD_VESPA = """#!/bin/sh
# Feeds the items to an application that has smar.sd among its schemas; needs the Vespa CLI.
set -eu
vespa feed --target "${1:-http://localhost:8080}" "$(dirname "$0")/items.jsonl"
"""
_VESPA = {Kind.TEXT: "string", Kind.NUMBER: "double", Kind.FLAG: "bool", Kind.MOMENT: "string"}


def _vespa(source: Embeddings, columns: list[pa.Field], dim: int, out: Path) -> list[str]:
    """A field's name has letters, digits and _ alone; a rank profile scores with the inner product itself."""
    types: dict[str, tuple[str, str]] = {}
    for at, field in enumerate(columns):
        kind, own = kind_of(field.type), field.type
        lists = kind is Kind.LIST
        if lists:
            kind = kind_of(own := own.value_type)
        whole = kind is Kind.NUMBER and pa.types.is_integer(own)
        if (name := "long" if whole else _VESPA.get(kind)) is not None:
            shown = field.name if _PLAIN.fullmatch(field.name) else f"column_{at}"
            types[field.name] = shown, f"array<{name}>" if lists else name

    def write(file: TextIO) -> None:
        for item, vector in _items(source, columns):
            fields: dict[str, Any] = {types[name][0]: value for name, value in item.items() if name in types}
            put = {"put": f"id:smar:smar::{item['item_id']}", "fields": fields | {VECTOR: {"values": vector}}}
            file.write(_json(put) + "\n")

    tensor = f"tensor<float>(x[{dim}])"
    declared = "".join(
        f"    field {name} type {kind} {{\n      indexing: summary | attribute\n    }}\n"
        for name, kind in types.values()
    )
    schema = f"""schema smar {{
  document smar {{
{declared}    field {VECTOR} type {tensor} {{
      indexing: attribute | index
      attribute {{
        distance-metric: dotproduct
      }}
      index {{
        hnsw {{
          max-links-per-node: 16
          neighbors-to-explore-at-insert: 200
        }}
      }}
    }}
  }}
  rank-profile smar {{
    inputs {{
      query(q) {tensor}
    }}
    first-phase {{
      expression: sum(query(q) * attribute({VECTOR}))
    }}
  }}
}}
"""
    nearest = f"{{targetHits: 10, hnsw.exploreAdditionalHits: 200}}nearestNeighbor({VECTOR}, q)"
    query = {
        "yql": f"select * from smar where {nearest}",
        "ranking.profile": "smar",
        "input.query(q)": "VECTOR of POST /v1/encode",
        "hits": 10,
    }
    texts = {"smar.sd": schema, "query.json": json.dumps(query, indent=2) + "\n", "load.sh": _LOAD_VESPA}
    return [_lines(out, "items.jsonl", write), *_files(out, texts)]


WRITERS: dict[str, Callable[[Embeddings, list[pa.Field], int, Path], list[str]]] = {
    "parquet": _parquet,
    "opensearch": _opensearch,
    "elasticsearch": _elasticsearch,
    "qdrant": _qdrant,
    "vespa": _vespa,
}
