"""Names and weights that a user gives in the place of stored ones, for one backbone or for some of several."""

from __future__ import annotations

import re
from collections.abc import Sequence

from featx.errors import BackboneError


def replacements(value: str | None, names: Sequence[str], option: str) -> list[str | None]:
    """What replaces the name or the weights of each of several backbones.

    Args:
        value: ``PART=VALUE``, or several with commas between them, where PART is the stored name of a backbone or its number,
            from 1. A file of code, ``folder/file.py:factory``, stands for the stored one of the same file name and factory
            without more. None replaces nothing.
        names: the stored names of the N backbones, in order.
        option: the name of the option, for messages.

    Returns:
        N values; None where nothing is replaced.

    Raises:
        BackboneError: the value names no such backbone.

    Examples:
        >>> replacements("timm/vit=/new/vit.pth", ["lenet5", "timm/vit"], "--weights")
        [None, '/new/vit.pth']
        >>> replacements("1=/a.pth,2=/b,c.pth", ["lenet5", "timm/vit"], "--weights")
        ['/a.pth', '/b,c.pth']
        >>> replacements("new/nets.py:small,nets.py:large", ["nets.py:small", "lenet5", "nets.py:large"], "--backbone")
        ['new/nets.py:small', None, 'nets.py:large']
    """
    found: list[str | None] = [None] * len(names)
    if value is None:
        return found
    places: dict[str, list[int]] = {str(number): [number - 1] for number in range(1, len(names) + 1)}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
    known = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))
    starts = list(re.finditer(rf"(?:^|,)({known})=", value))
    if starts and starts[0].start() == 0:
        ends = [*(each.start() for each in starts[1:]), len(value)]
        for start, end in zip(starts, ends, strict=True):
            for number in places[start[1]]:
                found[number] = value[start.end() : end]
        return found
    alone = {_file_name(each): each for each in value.split(",")}
    files = {_file_name(name) for name in names if ".py:" in name}
    if alone.keys() <= files:
        return [alone.get(_file_name(name)) for name in names]
    raise BackboneError(
        f"{option} is {value!r}; this head is on {len(names)} backbones, so that expected is which one it replaces: "
        + " or ".join(f"{option} {name}=..." for name in dict.fromkeys(names))
    )


def _file_name(name: str) -> str:
    """The name of a file of code and its factory, without the folder."""
    return name.replace("\\", "/").rpartition("/")[2]
