"""What one would write without smar: sentence-transformers and usearch behind FastAPI, in the shortest usual form.

Started as ``uvicorn parts.peer:app --workers N`` with the folder of `peer_build` in PEER_FOLDER.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer
from usearch.index import Index

folder = Path(os.environ["PEER_FOLDER"])
torch.set_num_threads(1)  # a worker for each core: more threads each would only wait for one another
encoder = SentenceTransformer(str(folder / "encoder"), device="cpu")
index = Index.restore(str(folder / "vectors.usearch"), view=True)
index.expansion_search = int((folder / "expansion_search").read_text())
items = pq.read_table(folder / "items.parquet").to_pylist()
app = FastAPI()


class Query(BaseModel):
    query: str
    k: int = 24


class Hit(BaseModel):
    item_id: str
    rank: int
    score: float
    title: str
    category: str
    brand: str
    price: float
    in_stock: bool


class Answer(BaseModel):
    query: str
    hits: list[Hit]


@app.post("/v1/search")
def search(body: Query) -> Answer:
    vector = encoder.encode(body.query, normalize_embeddings=True, show_progress_bar=False)
    found = index.search(np.concatenate([vector, vector]) / 2, body.k)
    return Answer(
        query=body.query,
        hits=[
            Hit(rank=rank, score=1 - match.distance, **items[match.key]) for rank, match in enumerate(found, start=1)
        ],
    )
