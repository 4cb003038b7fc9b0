"""The ways to read a network's tensors from a checkpoint: containers, prefixes, and other spellings of their names."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Converter = Callable[[dict[str, Tensor], nn.Module], Mapping[str, Tensor]]
"""Turns the tensors of a file, by name, into those of a network, as its library does for files of the original authors."""

_DEEPEST = 6
"""Containers within containers that are searched, as in {"model": {"state_dict": ...}}."""

_LONGEST = 64
"""The most members of a list or tuple that is searched for containers."""

_NO_WEIGHTS = re.compile(
    r"optim\w*|opt|opt_state|(?:max_)?exp_avg\w*|step|square_avg|momentum_buffer|grads?|gradients|lr_sched\w*|scheduler\w*|scaler"
)
"""What an optimizer's numbers are called, whose containers have the names and shapes of weights in some programs."""

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that torch.compile, Fabric, FSDP and activation checkpointing insert, anywhere in a name."""

_INNER_MODULE = re.compile(r"(?<=\.)module\.")
"""What ``DataParallel`` around a part of a network inserts, as in ``features.module.0.weight``."""

_CHUNK = re.compile(r"(?:^|(?<=\.))(blocks|layers)\.\d+\.(?=\d+\.)")
"""How DINOv2's training numbers the blocks of its chunks: ``blocks.1.5.`` is block 5, in chunk 1."""

_WITHIN = (
    (_INNER_MODULE, "", "module. was taken out of their names"),
    (_CHUNK, r"\1.", "the numbers of chunks of blocks were taken out of their names"),
)
"""What is taken out of names where nothing else fits, by what it is replaced, and how that is said."""

POSITIONS = re.compile(r"pos_?emb|position_embed|positional_embed|rel_pos|relative_position_bias", re.IGNORECASE)
"""Names of tensors whose shape depends on the size of the images."""

_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)"), r"\1.\2"),  # torchvision's DenseNet until 2017
    (re.compile(r"(encoder_layer_\d+\.mlp)\.0\."), r"\1.linear_1."),  # torchvision's vision transformer until 0.12
    (re.compile(r"(encoder_layer_\d+\.mlp)\.3\."), r"\1.linear_2."),
)
"""Today's names of tensors, and how older releases of the library, and its published files, spell them."""


@dataclass(frozen=True)
class Way:
    """One way to read a network's tensors from a checkpoint.

    Attributes:
        container: the keys that lead to the tensors, joined by dots; "" for the file itself.
        prefix: what is taken off the names: "" or something that ends in a dot.
        state: the tensors by the network's names.
        beside: the names in the same container that do not begin with the prefix.
        respelled: how the names were changed besides, as a clause; "" if they were not.
    """

    container: str
    prefix: str
    state: dict[str, Tensor]
    beside: tuple[str, ...]
    respelled: str = ""

    @property
    def name(self) -> str:
        """The container and the prefix as one dotted name, such as ``state_dict.module.encoder_q``."""
        return ".".join(part for part in (self.container, self.prefix.rstrip(".")) if part)


@dataclass(frozen=True)
class _Spelling:
    """How a file may spell a network's names.

    Attributes:
        names: the network's name by the file's.
        clause: what was changed; "" for the network's own names and those of older releases.
    """

    names: Mapping[str, str]
    clause: str = ""


def find_ways(content: Any, network: nn.Module, convert: Converter | None = None) -> Iterator[list[Way]]:
    """The ways to read a network's tensors, in groups: a later group is for what no way of an earlier one can read.

    Args:
        content: what a file holds: tensors by name, in dictionaries and lists.
        network: the network.
        convert: the library's own function for files of other programs.

    Yields:
        For the network's own names; for other spellings of them; for names and tensors that a library converts.
    """
    tables = list(tables_in(content))
    expected = list(network.state_dict())
    own, *others = _spellings(network, expected)
    yield [way for container, table in tables for way in _ways_of(container, table, own)]
    respelled = [
        way for container, table in tables for spelling in others for way in _ways_of(container, table, spelling)
    ]
    for container, table in tables:
        for pattern, replacement, clause in _WITHIN:
            inner = {pattern.sub(replacement, name): tensor for name, tensor in table.items()}
            if inner.keys() != table.keys() and len(inner) == len(table):
                respelled += _ways_of(container, inner, _Spelling(own.names, clause))
    yield respelled
    if convert:
        yield [way for container, table in tables for way in _converted(container, table, own, network, convert)]


def matching(names: list[str], part: str) -> list[str]:
    """The dotted names that some of their components select: the one that consists of them, or else all that have them.

    Args:
        names: of ways.
        part: dotted components; "" for every name, "." for the file itself.

    Examples:
        >>> matching(["net", "online.net", "ema"], "net")
        ['net']
        >>> matching(["net", "online.net", "ema"], "online")
        ['online.net']
    """
    if not part:
        return names
    wanted = part.strip(".")
    return [name for name in names if name == wanted] or [name for name in names if f".{wanted}." in f".{name}."]


def own_part(names: list[str]) -> str:
    """A part that selects one of several names, the first that is not empty, among all of them (see ``matching``).

    Examples:
        >>> own_part(["student.module", "teacher.module"])
        'student'
        >>> own_part(["net", "online.net"])
        'net'
    """
    first, *others = sorted(names, key=lambda name: not name)
    taken = {part for name in others for part in name.split(".")}
    return next((part for part in first.split(".") if part not in taken), first)


def tables_in(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary with tensors by name in what a file holds, with the keys that lead to it."""
    seen: set[int] = set()
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    while stack:
        container, each, depth = stack.pop()
        if id(each) in seen or depth > _DEEPEST:
            continue
        if isinstance(each, list | tuple) and len(each) <= _LONGEST:
            each = {str(number): member for number, member in enumerate(each) if isinstance(member, Mapping)}
        elif not isinstance(each, Mapping):
            continue
        seen.add(id(each))
        tensors = {name: value for name, value in each.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if not all(map(_NO_WEIGHTS.fullmatch, tensors)):
            yield container, _without_wrappers(tensors)
        inside = [
            (f"{container}.{key}" if container else str(key), value, depth + 1)
            for key, value in each.items()
            if isinstance(key, str | int)
            and isinstance(value, Mapping | list | tuple)
            and not _NO_WEIGHTS.fullmatch(str(key))
        ]
        stack += reversed(inside)


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    return plain if len(plain) == len(tensors) else tensors


def _spellings(network: nn.Module, expected: list[str]) -> Iterator[_Spelling]:
    """How files spell a network's names: as they are; as older releases did; by number; without its outermost part."""
    own = {name: name for name in expected}
    yield _Spelling(own)
    old = {}
    for name in expected:
        spelled = name
        for pattern, replacement in _OLD_NAMES:
            spelled = pattern.sub(replacement, spelled)
        old[spelled] = name
    if old.keys() != own.keys():
        yield _Spelling(old)
    children = [name for name, _ in network.named_children()]
    numbers = {child: str(number) for number, child in enumerate(children)}
    by_number = {
        f"{numbers[child]}.{rest}": f"{child}.{rest}"
        for child, dot, rest in (name.partition(".") for name in expected)
        if dot and child in numbers
    }
    if by_number and not by_number.keys() <= own.keys():
        used = [child for child in children if any(name.startswith(f"{child}.") for name in expected)]
        shown = f"{numbers[used[0]]} is {used[0]}" + (f", {numbers[used[-1]]} is {used[-1]}" if used[1:] else "")
        yield _Spelling(by_number, f"its parts are numbered as in nn.Sequential ({shown})")
    counts = Counter(name.partition(".")[0] for name in expected if "." in name)
    outer, most = counts.most_common(1)[0] if counts else ("", 0)
    if outer and 2 * most > len(expected):
        within = {name.removeprefix(f"{outer}."): name for name in expected}
        if len(within) == len(expected):
            yield _Spelling(within, f"{outer}. was put before their names")


def _ways_of(container: str, table: dict[str, Tensor], spelling: _Spelling) -> Iterator[Way]:
    """The ways to read a table: one for each prefix with half of the names; if none has, one for that with the most names."""
    votes = _prefixes(table, spelling.names).most_common()
    prefixes = [prefix for prefix, count in votes if count >= len(spelling.names) / 2]
    if not prefixes:
        prefixes = [votes[0][0] if votes and votes[0][1] > len(spelling.names) / 10 else ""]
    for prefix in prefixes:
        inner = tuple(other for other in prefixes if other.startswith(prefix) and other != prefix)
        state, beside = {}, list[str]()
        for name, tensor in table.items():
            short = name.removeprefix(prefix)
            if name.startswith(prefix) and (short in spelling.names or not name.startswith(inner)):
                state[spelling.names.get(short, short)] = tensor
            else:  # or of another copy of the network, within this one
                beside.append(name)
        yield Way(container, prefix, state, tuple(beside), spelling.clause)


def _prefixes(table: Mapping[str, Tensor], names: Mapping[str, str]) -> Counter[str]:
    """How many of some names stand in a table under each prefix."""
    votes: Counter[str] = Counter()
    for name in table:
        start = 0
        while True:
            if name[start:] in names:
                votes[name[:start]] += 1
            start = name.find(".", start) + 1
            if not start:
                break
    return votes


def _converted(
    container: str, table: dict[str, Tensor], own: _Spelling, network: nn.Module, convert: Converter
) -> Iterator[Way]:
    """The ways that a library's own function finds, for the names as they are and without the prefixes that may be one."""
    firsts = Counter(name.partition(".")[0] for name in table)
    common = [f"{first}." for first, count in firsts.most_common(2) if 2 * count > len(own.names)]
    for prefix in dict.fromkeys(["", *(prefix for prefix, _ in _prefixes(table, own.names).most_common(2)), *common]):
        state = {name.removeprefix(prefix): tensor for name, tensor in table.items() if name.startswith(prefix)}
        with contextlib.suppress(Exception):  # it is written for files of certain programs, and may fail on all others
            found = {name: t for name, t in convert(dict(state), network).items() if isinstance(t, Tensor)}
            beside = tuple(name for name in table if not name.startswith(prefix))
            library = type(network).__module__.partition(".")[0]
            resized = any(POSITIONS.search(n) and n in found and found[n].shape != t.shape for n, t in state.items())
            done = [f"{library} converted their names"] if found.keys() != state.keys() else []
            done += [f"{library} interpolated the position embeddings"] if resized else []
            clause = " and ".join(done) or f"{library} converted some of them"
            yield Way(container, prefix, found, beside, clause)
