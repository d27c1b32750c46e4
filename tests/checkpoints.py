"""Small random checkpoints of many architectures, saved with tokenizers and image processors of their real classes."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from sentencepiece import SentencePieceTrainer

WORDS = "red blue green dress shoe shirt kettle steel cotton women men kids long sleeve 1.7 l for with of the acme"
SIDE = 32
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "image_size": SIDE, "patch_size": 8}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"


def word_pieces(**options: Any) -> Any:
    names = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS.split(),
        *LETTERS,
        *(f"##{letter}" for letter in LETTERS),
    ]
    return hf.BertTokenizer(dict(zip(dict.fromkeys(names), range(len(names)), strict=False)), **options)


def _letters(start: list[str], end: str = "") -> dict[str, int]:
    return {
        name: number for number, name in enumerate([*start, *LETTERS, *((x + end for x in LETTERS) if end else ())])
    }


def clip_tokens() -> Any:
    vocabulary = _letters([], "</w>")
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    return hf.CLIPTokenizer(vocabulary, merges=[], model_max_length=77)


def qwen_tokens() -> Any:
    vocabulary = _letters(["Ġ"])
    return hf.Qwen2Tokenizer(vocabulary | {"<|endoftext|>": len(vocabulary)}, merges=[])


def gemma_tokens(kind: str = "GemmaTokenizer", **options: Any) -> Any:
    vocabulary = _letters(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"])
    return getattr(hf, kind)(vocabulary, merges=[], **options)


def unigram(kind: str, start: list[str], **options: Any) -> Any:
    pieces = [*start, "▁", *(f"▁{word}" for word in WORDS.split()), *LETTERS]
    return getattr(hf, kind)([(piece, -float(number)) for number, piece in enumerate(dict.fromkeys(pieces))], **options)


def xlm_tokens() -> Any:
    return unigram("XLMRobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>"])


def _pictures(kind: str = "ViTImageProcessorPil", **options: Any) -> Any:
    return getattr(hf, kind)(**{"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.4, 0.5, 0.6], **options})


def _text(config: type, tokenizer: Callable[[], Any], model: str, **options: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        tokens = tokenizer()
        built = getattr(hf, model)(config(**{"vocab_size": len(tokens), **SIZES, **options}))
        _finish(folder, built, tokens)

    return save


def _vision(
    config: type, model: str, pictures: Callable[[], Any] = _pictures, **options: Any
) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        _finish(folder, getattr(hf, model)(config(**options)), pictures())

    return save


def _finish(folder: Path, model: Any, *parts: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():  # livelier than fresh weights, whose vectors are all alike
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)


def _pair(
    config: type, tokenizer: Callable[[], Any], model: str, text: dict[str, Any], vision: dict[str, Any], **options: Any
) -> Callable[[Path], None]:
    pictures = options.pop("pictures", _pictures)

    def save(folder: Path) -> None:
        tokens = tokenizer()
        ends = {"eos_token_id": tokens.eos_token_id, "bos_token_id": tokens.bos_token_id}
        ends = {name: value for name, value in ends.items() if value is not None}
        parts = {"text_config": {"vocab_size": len(tokens), **ends, **text}, "vision_config": vision}
        _finish(folder, getattr(hf, model)(config(**parts, **options)), tokens, pictures())

    return save


def _siglip2_tokens() -> Any:
    return gemma_tokens("Siglip2Tokenizer", model_max_length=16, padding_side="right")


def _siglip_tokens() -> Any:
    """The class that runs in Python, with a small sentencepiece model of the words."""
    written, sizes = io.BytesIO(), {"vocab_size": 70, "hard_vocab_limit": False}
    ends = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    texts = iter([WORDS, *LETTERS.split(",")] * 20)
    SentencePieceTrainer.train(sentence_iterator=texts, model_writer=written, minloglevel=2, **sizes, **ends)
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(written.getvalue())
        file.flush()
        tokens = hf.SiglipTokenizer(file.name, model_max_length=16)
        tokens.vocab_file = str(Path(tempfile.gettempdir()) / "no-such-file")  # saved from memory
    return tokens


PAIRS = {
    "clip": _pair(
        *(hf.CLIPConfig, clip_tokens, "CLIPModel", {**SIZES, "max_position_embeddings": 77}, VISION),
        projection_dim=24,
        pictures=lambda: _pictures("CLIPImageProcessorPil", size={"shortest_edge": SIDE}, crop_size=SIDE),
    ),
    "siglip": _pair(
        *(hf.SiglipConfig, _siglip_tokens, "SiglipModel"),
        {**SIZES, "max_position_embeddings": 16, "projection_size": 32},
        VISION,
    ),
    "siglip2": _pair(
        *(hf.Siglip2Config, _siglip2_tokens, "Siglip2Model"),
        {**SIZES, "max_position_embeddings": 16, "projection_size": 32},
        {**SIZES, "patch_size": 8, "num_patches": 16},
        pictures=lambda: hf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
    ),
    "chinese_clip": _pair(
        *(hf.ChineseCLIPConfig, word_pieces, "ChineseCLIPModel", SIZES, VISION),
        projection_dim=24,
        pictures=lambda: _pictures("ChineseCLIPImageProcessorPil", crop_size={"height": SIDE, "width": SIDE}),
    ),
    "align": _pair(
        *(hf.AlignConfig, word_pieces, "AlignModel", SIZES),
        {"image_size": SIDE, "hidden_dim": 40, "depth_divisor": 8, "width_coefficient": 0.25, "depth_coefficient": 0.1},
        projection_dim=80,
        pictures=lambda: _pictures("EfficientNetImageProcessorPil", include_top=True),
    ),
    "metaclip_2": _pair(
        *(hf.MetaClip2Config, xlm_tokens, "MetaClip2Model", {**SIZES, "max_position_embeddings": 77}, VISION),
        projection_dim=24,
    ),
    "blip": _pair(
        *(hf.BlipConfig, word_pieces, "BlipModel", {**SIZES, "encoder_hidden_size": 32}, VISION), projection_dim=24
    ),
}

_T5 = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}
TEXTS = {
    "minilm": _text(hf.BertConfig, word_pieces, "BertModel"),
    "xlm-roberta": _text(
        hf.XLMRobertaConfig, xlm_tokens, "XLMRobertaModel", max_position_embeddings=130, pad_token_id=1
    ),
    "modernbert": _text(
        *(hf.ModernBertConfig, word_pieces, "ModernBertModel"),
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
    ),
    "deberta-v2": _text(
        *(
            hf.DebertaV2Config,
            lambda: unigram("DebertaV2Tokenizer", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]),
            "DebertaV2Model",
        ),
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    ),
    "distilbert": _text(
        hf.DistilBertConfig, word_pieces, "DistilBertModel", dim=32, hidden_dim=64, n_layers=2, n_heads=4
    ),
    "clip-text": _text(hf.CLIPTextConfig, clip_tokens, "CLIPTextModel"),
    "t5": _text(
        hf.T5Config, lambda: unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], extra_ids=0), "T5EncoderModel", **_T5
    ),
    "t5-whole": _text(
        hf.T5Config, lambda: unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], extra_ids=0), "T5Model", **_T5
    ),
    "qwen3": _text(hf.Qwen3Config, qwen_tokens, "Qwen3Model", num_key_value_heads=2, head_dim=8),
    "gemma3": _text(
        *(hf.Gemma3TextConfig, gemma_tokens, "Gemma3TextModel"), num_key_value_heads=1, head_dim=8, sliding_window=8
    ),
}
_SMALL_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1]}
VISIONS = {
    "clip-vision": _vision(hf.CLIPVisionConfig, "CLIPVisionModel", **VISION),
    "siglip-vision": _vision(hf.SiglipVisionConfig, "SiglipVisionModel", **VISION),
    "siglip2-vision": _vision(
        *(hf.Siglip2VisionConfig, "Siglip2VisionModel"),
        lambda: hf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
        **{**SIZES, "patch_size": 8, "num_patches": 16},
    ),
    "dinov2": _vision(hf.Dinov2Config, "Dinov2Model", **VISION),
    "dinov3": _vision(hf.DINOv3ViTConfig, "DINOv3ViTModel", **VISION),
    "vit": _vision(hf.ViTConfig, "ViTModel", **VISION),
    "convnextv2": _vision(hf.ConvNextV2Config, "ConvNextV2Model", num_stages=2, image_size=SIDE, **_SMALL_STAGES),
    "swin": _vision(
        *(hf.SwinConfig, "SwinModel"),
        image_size=SIDE,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    "mobilenet_v2": _vision(hf.MobileNetV2Config, "MobileNetV2Model", image_size=SIDE, depth_multiplier=0.25),
    "efficientnet": _vision(
        *(hf.EfficientNetConfig, "EfficientNetModel"),
        **{
            "image_size": SIDE,
            "hidden_dim": 320,
            "depth_divisor": 8,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.1,
        },
    ),
}


def checkpoint(name: str, root: Path) -> Path:
    """Folder of the checkpoint under `root`, made when it is not there yet."""
    folder = root / name
    if not folder.is_dir():
        torch.manual_seed(sum(map(ord, name)))
        (PAIRS | TEXTS | VISIONS)[name](folder)
    return folder
