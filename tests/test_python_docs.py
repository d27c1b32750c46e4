"""docs/python.md runs as it is written, on a tiny run, and what it says of texts holds for every character."""

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import regex
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Tokenizer, normalizers

import smar as public
from smar.core.overrides import merged
from smar.data.dataset import Dataset
from smar.data.text import normalise
from smar.model.encoder import Encoder
from smar.search.query import QueryEncoder
from tiny_line import CONFIG, Line, smar
from tiny_place import furnish

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
SECTIONS = {section.split("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
BLOCKS = {name: section.split("```python\n")[1].split("```")[0] for name, section in SECTIONS.items()}
QUERIES = ["Red  DRESS", "Straße", "kettle 1.7 l", "ΣΟΦΟΣ", "ＮＩＫＥ ﾍﾟｯﾄ", "cafe\u0301", "sweater " * 60, "☃"]
ASSIGNED = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs")]
IGNORED = regex.compile(r"\p{DI}")
GREEK_OR_CYRILLIC = regex.compile(r"[\p{Greek}\u0345\u1c80-\u1c8a]")
"""Of the fitted tokenizer: letters with a full case folding."""


@pytest.fixture(scope="module")
def place(line: Line, tmp_path_factory) -> Path:
    """A folder in which the page's names mean something."""
    folder = furnish(line, tmp_path_factory.mktemp("page"))
    for name in ("dataset", "embeddings", "index"):  # the page makes them
        (folder / name).unlink()
    assert smar("export", line.run, "--embeddings", line.embeddings, "--out", folder / "encoder").code == 0
    exported = smar(
        *("export", line.run, "--baseline", "dpsr", "--format", "sentence-transformers", "--out", folder / "sentences")
    )
    assert exported.code == 0, exported.err
    return folder


@pytest.fixture
def run_block(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the first block under a heading and give its names."""

    def run(heading: str) -> dict:
        monkeypatch.chdir(place)
        names: dict = {}
        exec(compile(BLOCKS[heading], "docs/python.md", "exec"), names)
        return names

    return run


def test_every_section_has_its_block():
    assert list(BLOCKS) == [
        "From tables to a report",
        "Vectors and scores",
        "An index",
        "Own fusions, losses and encoders",
        "The folder of a stage",
        "The query tower with plain onnxruntime",
        "sentence-transformers",
    ]


def test_from_tables_to_a_report(run_block, line: Line):
    names = run_block("From tables to a report")
    assert names["dataset"].digest == Dataset.open(line.dataset).digest  # as by command, so the run is finished
    assert names["losses"] == []
    told = json.loads((line.report / "metrics.json").read_text())
    assert [row["value"] for row in told[: len(names["frame"])]] == names["frame"].value.tolist()
    assert pa.table(names["report"]).column_names == list(names["frame"])
    assert names["best"].value == names["frame"].query("slice == 'all' and metric == 'R@50'").value.max()


def test_vectors_and_scores(run_block):
    names = run_block("Vectors and scores")
    assert names["encoder"].text_fields == ("title", "category", "brand")
    assert names["queries"].embedding.shape == (2, 32)
    assert names["items"].has_image.tolist() == [True, True, False]
    assert names["scores"].shape == (2, 3)


def test_an_index(run_block, line: Line, place: Path):
    (place / "dataset").exists() or (place / "dataset").symlink_to(line.dataset)
    names = run_block("An index")
    assert names["found"].hits
    assert all(hit.payload["price"] < 500 for hit in names["found"].hits)
    assert [hit.item_id for hit in names["small"].search("kettle", mode="text", filter="price<10").hits] == ["b"]


def test_own_fusion_loss_and_encoder_train(place: Path, line: Line, monkeypatch: pytest.MonkeyPatch):
    """The page's module and its YAML, trained, exported and searched with."""
    section = SECTIONS["Own fusions, losses and encoders"]
    (place / "my_module.py").write_text(BLOCKS["Own fusions, losses and encoders"])
    monkeypatch.syspath_prepend(place)
    said = yaml.safe_load(section.split("```yaml\n")[1].split("```")[0])
    tiny = merged(CONFIG, {"train": {"baselines": [], "stage1": {"steps": 2}, "stage2": {"steps": 1}}})
    run = public.train(line.dataset, place / "own", merged(tiny, said))
    encoder = run.encoder()
    assert [
        type(part).__name__ for part in (encoder.towers.model.fusion, encoder.towers.model.query_tower.encoder)
    ] == [
        "SumFusion",
        "MeanEncoder",
    ]
    rows = [{"item_id": "a", "title": "Red dress"}, {"item_id": "b", "title": "Kettle"}]
    index = public.Index.build(encoder.encode_item(rows), place / "own-index", items=rows, encoder=encoder)
    assert len(index.search("red").hits) == 2
    losses = read_losses(place / "own" / "stage1" / "logs")
    assert max(losses) < 8  # of three losses, each a mean of squares of at most 2 that the weights 1, .5 and 1 add up


def read_losses(folder: Path) -> list[float]:
    events = EventAccumulator(str(folder)).Reload()
    return [event.value for event in events.Scalars("train/loss")]


def test_transformers_names(run_block, place: Path, line: Line):
    names = run_block("The folder of a stage")
    own = Encoder.from_pretrained(line.run / "stage2").encode_queries(["red dress", "blue shoe"])[0]
    assert np.abs(names["vectors"].detach().numpy() - own).max() < 1e-5
    assert {"README.md", "tokenizer.json", "processor_config.json"} <= {
        file.name for file in (place / "copy").iterdir()
    }


def test_plain_onnxruntime_gives_the_services_vectors(run_block, place: Path):
    names = run_block("The query tower with plain onnxruntime")
    assert not {"smar", "torch", "transformers"} & names.keys()
    embedding, probability = names["encode"](QUERIES)
    own = QueryEncoder.load(place / "encoder").encode([normalise(query) for query in QUERIES])
    assert np.abs(embedding - own.embedding).max() < 1e-5
    assert np.abs(probability - own.image_probability).max() < 1e-5
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_inputs_outputs_and_operators_are_those_of_the_table(place: Path):
    kinds = {"tensor(int64)": "int64", "tensor(float)": "float32"}
    for file, special in (("model.onnx", {"Attention"}), ("model.int8.onnx", {"QAttention"})):
        session = onnxruntime.InferenceSession(place / "encoder" / file)
        for row, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
            for node in nodes:
                second = f", {node.shape[1] if isinstance(node.shape[1], str) else '`dim`'}" if node.shape[1:] else ""
                assert f"| {row} | `{node.name}` | {kinds[node.type]} [{node.shape[0]}{second}] |" in PAGE
        graph = onnx.load(place / "encoder" / file)
        assert {(entry.domain, entry.version) for entry in graph.opset_import} == {("", 20), ("com.microsoft", 1)}
        assert {node.op_type for node in graph.graph.node if node.domain} == special


def test_the_pages_normal_form_differs_only_where_it_says(run_block):
    form = run_block("The query tower with plain onnxruntime")["normal_form"]
    shapes = ("a{}b", "1{}", "ع{}ع")
    others = {c for c in ASSIGNED if any(form(s.format(c)) != normalise(s.format(c)) for s in shapes)}
    fractions = {c for c in ASSIGNED if "⁄" in unicodedata.normalize("NFKC", c)}
    assert {c for c in others if not IGNORED.match(c)} == {*"’‘´\u1ffdʼ׳ŉ™℠İ", *fractions}


def test_a_fitted_tokenizer_differs_only_where_the_page_says(line: Line):
    tokens = Tokenizer.from_file(str(line.run / "stage2" / "tokenizer.json"))
    library = normalizers.NFKC()

    def read(text: str) -> list[str]:
        return [word for word, _ in tokens.pre_tokenizer.pre_tokenize_str(tokens.normalizer.normalize_str(text))]

    others = {c for c in ASSIGNED if read(f"a{c}b") != read(normalise(f"a{c}b"))}
    young = {c for c in others if library.normalize_str(c) != unicodedata.normalize("NFKC", c)}
    greek = {c for c in others if GREEK_OR_CYRILLIC.search(unicodedata.normalize("NFKC", c))}
    fractions = {c for c in others if "⁄" in unicodedata.normalize("NFKC", c)}
    rest = {c for c in others - young - greek - fractions if not IGNORED.match(c)}
    assert rest == {*"ßẞŉİ’‘´\u1ffdʼ׳™℠\x1c\x1d\x1e\x1f"}
    assert {"ς", "ᾳ", "ᲀ"} <= greek
    assert "🯱" in young


def test_sentence_transformers_without_smar(place: Path, line: Line):
    """In a fresh process, which never imports smar."""
    tail = "import sys, numpy\nassert 'smar' not in sys.modules\nnumpy.savez('there', queries=queries, items=items)"
    code = f"{BLOCKS['sentence-transformers']}\n{tail}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=place)
    there = np.load(place / "there.npz")
    encoder = Encoder.from_pretrained(line.run / "baselines/dpsr/stage2")
    assert np.abs(there["queries"] - encoder.encode_queries(["red dress"])[0]).max() < 1e-5
    fields = [["Red summer dress"], ["Dresses"], ["ACME"]]
    own = encoder.encode_item(fields, np.zeros((0, 32, 32, 3), np.uint8), np.array([False])).text.numpy()
    assert np.abs(there["items"] - own).max() < 1e-5
