"""docs/python.md runs as it is written, on a tiny run, and what it says of texts holds for every character."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import regex
from PIL import Image
from tokenizers import Tokenizer, normalizers

from smar.data.text import normalise
from smar.model.encoder import Encoder
from smar.search.query import QueryEncoder
from tiny_line import Line, smar

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
    folder = tmp_path_factory.mktemp("page")
    (folder / "run").symlink_to(line.run)
    assert smar("export", line.run, "--embeddings", line.embeddings, "--out", folder / "encoder").code == 0
    exported = smar(
        *("export", line.run, "--baseline", "dpsr", "--format", "sentence-transformers", "--out", folder / "sentences")
    )
    assert exported.code == 0, exported.err
    Image.new("RGB", (40, 60), "red").save(folder / "dress.jpg")
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
        "Encoder",
        "The folder of a stage",
        "The query tower with plain onnxruntime",
        "sentence-transformers",
    ]


def test_encoder(run_block, line: Line):
    names = run_block("Encoder")
    assert names["encoder"].config.text_fields == ["title", "category", "brand"]
    assert names["scores"].shape == (1, 2)
    assert names["item"].has_image.tolist() == [True, False]


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
