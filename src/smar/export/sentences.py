"""Query and item-text tower as a folder that sentence-transformers reads: an encoder or two, a route for each side.

The library's own modules write it, so that what it reads is what it wrote; then it is opened and compared.
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from smar.core.errors import InputError
from smar.core.files import publish
from smar.data.text import normalise
from smar.export.onnx import PROBE, TOLERANCE
from smar.model.encoder import Encoder
from smar.model.hub import CARD_FILE
from smar.model.quiet import quiet
from smar.model.towers import ACTIVATIONS, TextTower

_POOLING = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
"""Poolings of a tower, by the library's names; `pooler` is the encoder's own and needs none."""
_ROUTES = {"query": "query_tower", "document": "text_tower"}


def export_sentences(encoder: Encoder, out: Path) -> float:
    """Write `out` and compare its vectors with the encoder's own.

    `encode_query` of what is loaded gives Q, `encode_document` and `encode` give S_t, of texts in smar's normal form;
    an item is its fields as `SmarProcessor.item_texts` joins them.

    Returns:
        The largest difference, over queries and items.

    Raises:
        InputError: the model reads more than words, the library is not installed, or a tower does something that its
            modules cannot do. An older `out` then stays as it was.
    """
    if encoder.config.kind != "dpsr":
        raise InputError(
            f"sentence-transformers takes a model of kind dpsr, words alone, and this one is of kind "
            f"{encoder.config.kind}. Take the run's baseline of that kind with --baseline NAME, or train one with "
            "--set model.kind=dpsr --set train.baselines=[]."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.partial-", dir=out.parent) as work, quiet():
        partial = Path(work) / out.name
        try:
            _library(encoder, Path(work)).save(str(partial), create_model_card=False)
            worst = _difference(encoder, partial)
        except ImportError:
            raise InputError("--format sentence-transformers needs the package: install smar[sentences].") from None
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise InputError(f"sentence-transformers cannot read this model: {said}") from None
        if not worst <= TOLERANCE:
            raise InputError(
                f"sentence-transformers gives vectors that differ from this model's by {worst:.1e} (allowed "
                f"{TOLERANCE:.0e}): its encoder is fed in another way there. `smar export` without --format writes an "
                "ONNX graph instead."
            )
        _write_card(encoder, partial)
        publish(partial, out)
    return worst


def _library(encoder: Encoder, work: Path) -> Any:
    """The towers as a `SentenceTransformer`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    model, config = encoder.model, encoder.config
    towers = {route: getattr(model, name) for route, name in _ROUTES.items()}
    first = {route: _encoder(encoder, tower, work / f"{route}-encoder") for route, tower in towers.items()
             if not (route == "document" and config.share_text)}  # fmt: skip
    routes = {route: [*first.get(route, first["query"]), *_dense(tower)] for route, tower in towers.items()}
    prompts = {"query": config.query_prefix, "document": config.item_prefix}
    modules = [Router.for_query_document(routes["query"], routes["document"]), Normalize()]
    usual = "document" if config.item_prefix else None
    return SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name=usual, device="cpu")


def _encoder(encoder: Encoder, tower: TextTower, folder: Path) -> list[Any]:
    """A tower's encoder with its tokenizer, and how its states are pooled."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    head, config = tower.head, encoder.config
    if head.pad_to or head.pooling not in (*_POOLING, "pooler"):
        fault = f"texts filled up to {head.pad_to} tokens" if head.pad_to else f"pooling={head.pooling}"
        raise InputError(f"sentence-transformers has no counterpart of this tower's {fault}.")
    transformer: Any = tower._shared[0] or tower.encoder
    transformer.save_pretrained(folder)
    tokenizer = copy.deepcopy(encoder.processor.tokenizer)
    tokenizer._set_processor_class(None)  # else the library would look for a `SmarProcessor`
    tokenizer.init_kwargs.pop("processor_class", None)
    tokenizer.save_pretrained(folder)
    lengths = {"query_length": config.query_length, "document_length": config.text_length}
    own = {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}},
           "module_output_name": "sentence_embedding"}  # fmt: skip
    limit = {"model_max_length": config.text_length}
    module = Transformer(str(folder), processor_kwargs=limit, **lengths, **(own if head.pooling == "pooler" else {}))
    return [module] if head.pooling == "pooler" else [module, Pooling(head.states, _POOLING[head.pooling])]


def _dense(tower: TextTower) -> list[Any]:
    """A tower's projection, layer by layer."""
    from sentence_transformers.sentence_transformer.modules import Dense

    linear = [module for module in tower.projection.modules() if isinstance(module, nn.Linear)]
    out = []
    for layer, (_, bias, activation) in zip(linear, tower.head.layers, strict=True):
        dense = Dense(layer.in_features, layer.out_features, bias, ACTIVATIONS[activation]())
        dense.linear.load_state_dict(layer.state_dict())
        out.append(dense)
    return out


def _difference(encoder: Encoder, folder: Path) -> float:
    """Largest difference of the folder's vectors from the model's own, in float32."""
    from sentence_transformers import SentenceTransformer

    exact = Encoder(encoder.model, encoder.processor)
    known = exact.processor.tokenizer(PROBE)["input_ids"]  # a text without a token has no vector there
    texts = [normalise(text) for text, ids in zip(PROBE, known, strict=True) if ids]
    fields = [texts] * len(exact.config.text_fields)
    items = exact.processor.item_texts(fields)
    none = np.zeros(len(texts), np.bool_)
    own = exact.encode_item(fields, np.zeros((0, 1, 1, 3), np.uint8), none).text.cpu().numpy()
    read = SentenceTransformer(str(folder), device="cpu")
    pairs = [(read.encode_query(texts), exact.encode_queries(texts)[0])]
    pairs += [(encode(items), own) for encode in (read.encode_document, read.encode)]
    return max(float(np.abs(theirs - ours).max()) for theirs, ours in pairs)


def _write_card(encoder: Encoder, folder: Path) -> None:
    """The model's own card, with what holds for this folder."""
    source = Path(encoder.model.name_or_path) / CARD_FILE
    card = (
        ModelCard.load(source)
        if source.is_file()
        else ModelCard(f"---\n{ModelCardData(license='other').to_yaml()}\n---\n")
    )
    front: Any = card.data
    front.library_name, front.pipeline_tag = "sentence-transformers", "sentence-similarity"
    front.tags = list(dict.fromkeys(["sentence-transformers", *(front.tags or [])]))
    join = encoder.processor.item_texts([[name] for name in encoder.config.text_fields])[0]
    card.text = card.text.partition("## Use\n")[0] + _USE.format(join=join)
    card.save(folder / CARD_FILE)


_USE = """## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this-folder")
queries = model.encode_query(["red dress"])
items = model.encode_document(["red summer dress"])
scores = queries @ items.T
```

Vectors have unit length and are those of `smar`, for texts in its normal form: `smar.data.text.normalise(text)` comes
first, on queries and on items. `docs/python.md` of smar says which texts have other vectors without it. An item is its
fields, each in normal form, the empty ones left out, with the separator between them: `{join}`. `encode` reads what it
is given as items.
"""
