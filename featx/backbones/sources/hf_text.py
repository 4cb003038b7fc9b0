"""The text towers of models of transformers, with the tokenizers in their folders."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from featx.backbones.text_tower import TextTower
from featx.errors import BackboneError
from featx.text import brief


def text_tower_of(model: Any, folder: Path, short: str) -> TextTower:
    """The text tower of a model of images and text.

    Args:
        model: such a model, with its weights.
        folder: where its tokenizer is.
        short: the model's name for messages.

    Raises:
        BackboneError: the folder has no tokenizer, or it needs code of the repository.
    """
    tokenizer = _tokenizer(folder, short)
    config, sigmoid = model.config, getattr(model, "logit_bias", None) is not None
    length = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    if length is not None and "roberta" in type(model.text_model).__name__.lower():
        length -= 2  # the first positions of RoBERTa are those of padding
    most = min(length or tokenizer.model_max_length, tokenizer.model_max_length)

    def encode(texts: list[str]) -> Tensor:
        # SigLIP was trained on texts of one length, filled up
        inputs: Mapping[str, Tensor] = tokenizer(
            texts, padding="max_length" if sigmoid else True, truncation=True, max_length=most, return_tensors="pt"
        )
        known = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
        if sigmoid:
            known.pop("attention_mask", None)  # nor does its own processor make one
        out = model.get_text_features(**known)
        vectors: Tensor = getattr(out, "pooler_output", out)
        return vectors

    bias = model.logit_bias.item() if sigmoid else 0.0
    scale = getattr(model, "logit_scale", None)
    return TextTower(encode, scale.exp().item() if scale is not None else 1.0, bias, sigmoid)


_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""The files of tokenizers. Without one, transformers would make a tokenizer that knows no words."""


def _tokenizer(folder: Path, short: str) -> Any:
    auto: Any = import_module("transformers.models.auto.tokenization_auto")
    try:
        if not any((folder / name).is_file() for name in _VOCABULARIES):
            raise FileNotFoundError(f"none of {', '.join(_VOCABULARIES)} is there")
        return auto.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers passes on the errors of each tokenizer
        raise BackboneError(
            f"hf/{short} has no tokenizer in {folder} that can be read ({brief(error)}); save it beside the model: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        ) from error
