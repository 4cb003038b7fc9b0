"""Find a network's tensors in a checkpoint, whatever container and prefix a training program stored them under."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featx.backbones.fit import Fit
from featx.backbones.ways import POSITIONS, Converter, Way, find_ways, matching, own_part
from featx.backbones.weight_reader import read_file
from featx.backbones.weights import copy_into, require_finite
from featx.errors import BackboneError
from featx.text import counted, form, listed, printable

_FOREIGN_NAMES = (
    (
        r"(?:^|\.)embeddings\.(?:patch_embeddings|cls_token|norm)\.|embedder\.embedder\.|(?:^|\.)vision_model\.|layernorm_before"
        r"|attention\.attention\.query",
        "its names are those of Hugging Face transformers: name the model's folder, as in --backbone hf/FOLDER",
    ),
    (
        r"(?:^|\.)visual\.(?:conv1|transformer|trunk|class_embedding|attnpool)|(?:^|\.)resblocks\.",
        "its names are those of CLIP: name its architecture, as in --backbone open_clip/ViT-B-32",
    ),
    (r"flat_param", "FSDP saved flat shards: save it again with StateDictType.FULL_STATE_DICT"),
    (
        r"lora_[AB]\b|lora_(?:down|up)",
        "it holds a LoRA adapter: merge it into its network (merge_and_unload) and save that",
    ),
    (r"\.weight_(?:orig|mask)$", "its layers are pruned: call torch.nn.utils.prune.remove on them, and save it again"),
    (
        r"\.parametrizations\.|\.weight_[gv]$",
        "its layers are parametrized: call remove_parametrizations, and save it again",
    ),
    (
        r"_packed_params|\.zero_point$",
        "it is quantized, and featx takes float weights: save the network before its conversion",
    ),
)
"""What the names in a checkpoint tell about a file that does not fit, and what to do."""

_FEW = 0.5
"""Below this share of the tensors that fit, a checkpoint is of another architecture."""


class SeveralNetworksError(BackboneError):
    """A file holds several networks that fit, and none of them was named."""


def load_checkpoint(
    network: nn.Module,
    path: Path,
    *,
    part: str = "",
    name: str = "",
    side: int = 0,
    classifier: Callable[[], str | None] = lambda: None,
    convert: Converter | None = None,
) -> tuple[str, ...]:
    """Load a file's tensors into a network.

    The tensors may be in a container ("state_dict", "model", ...) and their names may have a prefix ("module.",
    "module.encoder_q.", ...), which are taken off if exactly one way to do so makes every tensor of the backbone fit. The last
    layer, which no feature depends on, may be missing or have another size; it is then set to zeros.

    Args:
        network: changed in place.
        path: the file.
        part: dotted components of the container and prefix to read, where several ways fit; "" for the only way.
        name: of the network, for messages.
        side: of the images in pixels, for messages about position embeddings.
        classifier: finds the name of the network's last layer; called only if some tensor does not fit.
        convert: the library's own function for files of other programs, tried where no other way fits.

    Returns:
        Sentences for the user: what was taken off, converted and left out.

    Raises:
        BackboneError: the file cannot be read, no way fits, or several ways fit and their tensors differ.
    """
    content = read_file(path)
    last_part = functools.cache(lambda: _last_part(network, classifier()))
    tried: list[Way] = []
    for ways in find_ways(content, network, convert):
        names = matching([way.name for way in ways], part)
        named = [way for way in ways if way.name in names]
        tried += named
        good = [fit for fit in (Fit(way, network, None) for way in named) if fit.good]
        if named and (len(named) > 1 or not good):  # another way may fit but for its last layer
            good = [fit for fit in (Fit(way, network, last_part()) for way in named) if fit.good]
        if good:
            return _load(network, _only(good, path, network, name), path)
    if not tried:
        raise BackboneError(_without_tensors(path, content, part))
    closest = max(
        (Fit(way, network, last_part()) for way in tried),
        key=lambda fit: (-len(fit.faults), not fit.way.respelled, -len(fit.strangers)),
    )
    raise BackboneError(_misfit(path, name or type(network).__name__, closest, side))


def split_part(weights: str) -> tuple[str, str]:
    """Split ``FILE#PART`` into the file and the part; "" where none is named, or where a file has the whole name.

    Examples:
        >>> split_part("moco.pth#encoder_q")
        ('moco.pth', 'encoder_q')
    """
    file, mark, part = weights.rpartition("#")
    try:
        whole = not mark or Path(weights).exists()
    except (OSError, ValueError):
        whole = False
    return (weights, "") if whole else (file, part)


def _last_part(network: nn.Module, classifier: str | None) -> str | None:
    """The outermost module around the last layer that holds no other tensor; None if no tensor would be left outside it."""
    names, last = list(network.state_dict()), classifier
    while last and any(not name.startswith(f"{last}.") for name in names):
        parent = last.rpartition(".")[0]
        own = [name for name in names if name.startswith(f"{parent}.")]
        if not parent or any(not name.startswith(f"{classifier}.") for name in own):
            return last
        last = parent
    return None


def _only(good: list[Fit], path: Path, network: nn.Module, name: str) -> Fit:
    """The one way that fits, or the first of several ways to the same tensors.

    Raises:
        BackboneError: the backbone's tensors differ.
    """
    good = sorted(good, key=lambda fit: not fit.last_layer_fits)
    if all(_same(good[0], other) for other in good[1:]):
        return good[0]
    raise several_networks([fit.way.name for fit in good], path, name or type(network).__name__)


def several_networks(names: list[str], path: Path, network: str) -> SeveralNetworksError:
    """The error for a file that holds several networks.

    Args:
        names: of the ways to them; "" for the file itself.
        path: the file.
        network: the name of the network that they fit.
    """
    found = listed([printable(name or "the file itself") for name in names])
    itself = f"; {path}#. is the file itself" if "" in names else ""
    return SeveralNetworksError(
        f"{path} holds {len(names)} networks that fit {network}: {found}. Name one of them, as in --weights "
        f"{path}#{printable(own_part(names))}{itself}"
    )


def _same(one: Fit, other: Fit) -> bool:
    """Whether two ways give the backbone the same tensors."""
    ours, theirs = one.backbone, other.backbone
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def _load(network: nn.Module, fit: Fit, path: Path) -> tuple[str, ...]:
    require_finite(network, fit.backbone, origin=str(path))
    copy_into(network, fit.loadable)
    tensors = network.state_dict()
    with torch.no_grad():
        for name in fit.left_blank:  # not left random, so that what is built from one file is always the same
            tensors[name].zero_()
    return tuple(f"{path}: {clause}" for clause in fit.notes)


def _without_tensors(path: Path, content: Any, part: str) -> str:
    """The message about a file that has no tensors by name."""
    expected = "expected the state_dict of a network"
    if part:
        return f"{path} has no part {part!r} with tensors by name; {expected}"
    lists = {"the file itself": content, **content} if isinstance(content, Mapping) else {"the file itself": content}
    for key, value in lists.items():
        if isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(each, Tensor) for each in value):
            what = "it is" if value is content else f"its {printable(str(key))} is"
            return (
                f"{path} does not hold tensors by name: {what} a list of {len(value)} tensors without names. Copy them into "
                f"the network in the program that made them (ema.copy_to(network.parameters())), and save its state_dict"
            )
    return f"{path} does not hold tensors by name; {expected}"


def _misfit(path: Path, name: str, closest: Fit, side: int) -> str:
    """The message about the way that comes closest: how many tensors fit, which is the first that does not, what to do."""
    way, total, faults = closest.way, len(closest.needed), closest.faults
    inside = [f"in its {way.container}"] if way.container else []
    inside += [f"without the prefix {way.prefix}"] if way.prefix else []
    where = f" ({printable(', '.join(inside))})" if inside else ""
    if not faults:
        more, first = len(closest.strangers), printable(f"{way.prefix}{closest.strangers[0]}") or repr("")
        return (
            f"{path} does not fit {name}{where}: all {total} tensors of {name} are in it, but {more} more "
            f"{form(more, 'belongs', 'belong')} to no part of it, the first {first}. Name the architecture that has "
            f"{form(more, 'it', 'them')}, or a file without {form(more, 'it if it only serves', 'them if they only serve')} "
            "training"
        )
    first, why = next(iter(faults.items()))
    fitting = total - len(faults)
    return (
        f"{path} does not fit {name}{where}: {fitting} of {counted(total, 'tensor')} {form(fitting, 'fits', 'fit')}; the "
        f"first that does not is {first}, which {why}{_remedy(closest, side)}"
    )


def _remedy(closest: Fit, side: int) -> str:
    """What to do about the faults of a checkpoint, as a sentence; "" where nothing is known."""
    way, faults = closest.way, closest.faults
    names = [*way.state, *way.beside]
    if odd := _odd_tensors(closest):
        return f". {odd}"
    if not closest.strangers and all(POSITIONS.search(name) and name in closest.misshapen for name in faults):
        trained = _trained_at(closest, side)
        return (
            f". Position embeddings of another shape belong to images of another size: --crop {trained} builds the network for "
            f"the size of the file, --crop {side} interpolates them for {side} pixels"
            if trained
            else ". Position embeddings of another shape belong to another image size: name that size with --crop"
        )
    for pattern, remedy in _FOREIGN_NAMES:
        if any(re.search(pattern, name) for name in names) and not any(re.search(pattern, n) for n in closest.expected):
            return f"; {remedy}"
    if channels := _other_channels(closest):
        return f". The file is of a network for images of {counted(channels[0], 'channel')} instead of {channels[1]}"
    if len(faults) > (1 - _FEW) * len(closest.needed):
        if all(name in closest.misshapen for name in faults) and not closest.strangers:
            return (
                ". It has this network's names and other shapes, as a larger or smaller one of its kind: name that one"
            )
        some = listed([printable(name) for name in names], most=3)
        return f". The file is of another architecture (its names are {some}): name that one with --backbone"
    around = f"{(closest.last or '').partition('.')[0]}."
    wrong = [name for name in closest.needed if name.startswith(around)] == list(faults)
    if wrong and all(name.startswith(around) for name in closest.strangers) and len(faults) < len(closest.needed):
        return (
            f". Its {around[:-1]} is another one, and the embedding is what enters the last layer of the network's own. Build "
            "the network with the classifier of the file in a function of Python, as in --backbone net.py:make"
        )
    if closest.strangers:
        more, stranger = len(closest.strangers), printable(f"{way.prefix}{closest.strangers[0]}")
        return (
            f". The file is of another architecture: {counted(more, 'tensor')} of it {'has' if more == 1 else 'have'} no place "
            f"in this one, the first {stranger}. Name the architecture that has {'it' if more == 1 else 'them'} with --backbone"
        )
    return ". Name the architecture that the file was trained as with --backbone"


def _other_channels(closest: Fit) -> tuple[int, int] | None:
    """The channels of the images that a file's network and this one take, if nothing but its first layers differs in them."""
    first = next((name for name in closest.needed if closest.expected[name].ndim == 4), "")
    pairs = set()
    for name in closest.faults:
        found, wanted = (
            tuple(tensors[name].shape) if name in tensors else () for tensors in (closest.way.state, closest.expected)
        )
        if not len(found) == len(wanted) == 4 or (found[0], *found[2:]) != (wanted[0], *wanted[2:]):
            return None
        pairs.add((found[1], wanted[1]))
    return next(iter(pairs)) if len(pairs) == 1 and first in closest.faults else None


def _odd_tensors(closest: Fit) -> str:
    """What to do about tensors that are no plain arrays of floats in memory; "" if they are not the reason."""
    state, faults = closest.way.state, closest.faults
    if any(tensor.is_meta for tensor in state.values()):
        return "Its tensors have no numbers (they are on the meta device): save the network again where it has them"
    if all(name in state and not state[name].numel() for name in faults):
        return (
            "Empty tensors are those of DeepSpeed ZeRO-3: run zero_to_fp32.py in its folder, and name what that writes"
        )
    if any(type(tensor).__name__ == "DTensor" for tensor in state.values()):
        return (
            "Its tensors are parts of those of several processes: save it with StateDictOptions(full_state_dict=True)"
        )
    if any(name in state and state[name].layout != torch.strided for name in faults):
        return "It holds sparse tensors: save them dense, by tensor.to_dense()"
    if all(name in closest.mistyped for name in faults):
        return (
            "Weights of another type may be quantized, and their scale is not part of them: save them as float tensors"
        )
    return ""


def _trained_at(closest: Fit, side: int) -> int:
    """The side in pixels of the images that position embeddings of another shape belong to; 0 where they do not tell."""
    for name in closest.faults:
        found, wanted = (tuple(tensors[name].shape) for tensors in (closest.way.state, closest.expected))
        if len(found) == len(wanted) in (2, 3) and [*found[:-2], found[-1]] == [*wanted[:-2], wanted[-1]] and side:
            grid = math.isqrt(wanted[-2])
            further = wanted[-2] - grid**2
            places = found[-2] - further
            if grid and places > 0 and math.isqrt(places) ** 2 == places and not side % grid:
                return math.isqrt(places) * (side // grid)
    return 0
