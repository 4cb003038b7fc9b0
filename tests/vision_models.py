"""Tiny models of transformers and open_clip with random weights, saved as people save them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
IMAGES = {"image_size": 32, "patch_size": 8}
TEXTS = {"vocab_size": 64, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WORDS = ("a", "photo", "of", "the", "dark", "light", "dog", "cat", "bad", "good")
"""The vocabulary of the tiny tokenizer, besides <pad>, <bos>, <eos> and <unk>."""


def transformers() -> Any:
    """The package, quiet."""
    package = pytest.importorskip("transformers", reason="needs the extra transformers")
    package.logging.set_verbosity_error()
    package.logging.disable_progress_bar()
    return package


def sized(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def randomised(model: Any) -> Any:
    """A model whose norms and biases are random too, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of one batch, without which tiny networks tell no images apart
    if norms:
        with torch.no_grad():
            model.train()(pixel_values=torch.randn(8, 3, 32, 32, generator=generator))
    return model.eval()


def saved(folder: Path, kind: str, config: Any, processor: Any = None) -> Any:
    """A random model, saved in a folder with its image processor."""
    torch.manual_seed(0)
    model = randomised(getattr(transformers(), kind)(config))
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return model


def vit(folder: Path, kind: str = "ViTForImageClassification", **fields: Any) -> Any:
    """A vision transformer for 32 pixels, with the processor of ViT."""
    package = transformers()
    config = package.ViTConfig(**TINY, **IMAGES, num_labels=3, **fields)
    return saved(folder, kind, config, package.ViTImageProcessor(size=sized(32)))


def clip(folder: Path) -> Any:
    """A CLIP for 32 pixels with a tokenizer of a few words."""
    package = transformers()
    config = package.CLIPConfig(vision_config={**TINY, **IMAGES}, text_config={**TINY, **TEXTS}, projection_dim=24)
    model = saved(
        folder, "CLIPModel", config, package.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=sized(32))
    )
    tokenizer().save_pretrained(folder)
    return model


def siglip(folder: Path) -> Any:
    """A SigLIP for 32 pixels with a tokenizer of a few words."""
    package = transformers()
    config = package.SiglipConfig(vision_config={**TINY, **IMAGES}, text_config={**TINY, **TEXTS})
    model = saved(folder, "SiglipModel", config, package.SiglipImageProcessor(size=sized(32)))
    tokenizer().save_pretrained(folder)
    return model


def tokenizer() -> Any:
    """A tokenizer of ``WORDS``, which begins and ends a text as CLIP's does."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra transformers")
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=12,
    )


OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
"""A tiny configuration of open_clip; the vocabulary is that of its own tokenizer, which is part of it."""


def open_clip_model(file: Path) -> Any:
    """A random model of ``OPEN_CLIP``, whose tensors are saved to a file."""
    package = pytest.importorskip("open_clip", reason="needs the extra open-clip")
    torch.manual_seed(0)
    model = randomised(package.CLIP(**OPEN_CLIP))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    return model


@functools.cache
def _registered() -> None:
    import json
    import tempfile

    import open_clip

    folder = Path(tempfile.mkdtemp())
    (folder / "featx-tiny.json").write_text(json.dumps(OPEN_CLIP))
    open_clip.add_model_config(folder / "featx-tiny.json")


def register_open_clip() -> str:
    """Add ``OPEN_CLIP`` to open_clip's architectures; its name."""
    pytest.importorskip("open_clip", reason="needs the extra open-clip")
    _registered()
    return "featx-tiny"


Maker = Callable[[Path], Any]
