"""How images of other shapes fit a network's input: what the user asks for, on top of the transform of the weights."""

from __future__ import annotations

import dataclasses

from featx.data.transform import Transform, sides_text


def fitted(
    transform: Transform,
    *,
    fit: str | None = None,
    size: tuple[int, int] | None = None,
    resize: int | None = None,
    crop: int | None = None,
) -> Transform:
    """The transform of some weights, with other sizes or another way to fit. None leaves each as it is.

    Args:
        transform: the transform of the weights.
        fit: "crop", "pad" or "squash"; if it is not that of the weights, images are resized to the size itself.
        size: (H, W) of the network's input; the length that images are resized to changes in proportion.
        resize: the length that images are resized to, as in ``Transform``.
        crop: the side of a square input; the length that images are resized to stays.

    Raises:
        ValueError: two of them contradict one another, or there is no such fit.

    Examples:
        >>> fitted(Transform(), size=(448, 448)).resize, fitted(Transform(), size=(224, 448), fit="pad").target
        (512, (224, 448))
    """
    if size is not None and crop is not None:
        raise ValueError("size (--size) and crop (--crop) both set the size of the images; expected one of them")
    if resize == 0 and fit in ("crop", "pad"):
        raise ValueError(f"a resize of 0 (--resize 0) squashes, and fit (--fit) is {fit}; expected one of them")
    own = transform.fitting
    if fit is None and resize is not None and (resize == 0 or transform.resize == 0):
        fit = "crop" if resize else "squash"
    height, width = size or ((crop, crop) if crop is not None else transform.size)
    if resize is None:
        resize = transform.resize
        if fit not in (None, own):
            resize = min(height, width)
        elif size is not None:
            resize = resize * min(size) // min(transform.size)
    return dataclasses.replace(transform, fit=fit or own, resize=resize, crop=height, crop_width=width)


def fit_words(transform: Transform) -> str:
    """What happens to an image of another shape, in words, after "images are".

    Examples:
        >>> fit_words(Transform()), fit_words(Transform(resize=0))
        ('resized to 256 pixels and cropped to 224 x 224', 'squashed to 224 x 224')
    """
    size, target = sides_text(transform.size), sides_text(transform.target)
    if transform.fitting == "squash":
        return f"squashed to {target}" + (f" and cropped to {size}" if target != size else "")
    if transform.fit == "pad":
        cropped = f", and cropped to {size}" if target != size else ""
        return f"resized to fit into {target} and padded with {_colour(transform)}{cropped}"
    if transform.crop_width is None:
        return f"resized to {transform.resize} pixels and cropped to {size}"
    return f"resized to cover {target} and cropped to {size}"


def fit_notes(transform: Transform, own: Transform, *, asked: bool) -> tuple[str, ...]:
    """The note about images that do not fit the network as those that its weights were made with.

    Args:
        transform: how images are read.
        own: the transform of the weights.
        asked: whether the user named a fit or a size, from which other numbers follow.
    """
    if transform.fit == "crop" and 0 < transform.resize < min(transform.size):
        square = transform.crop_width is None
        size = f"the crop of {transform.crop}" if square else f"{sides_text(transform.size)}"
        return (
            f"images are resized to {transform.resize} pixels and padded with black to {size}; --resize "
            f"{min(transform.size)} would fill it",
        )
    if not asked or fit_words(transform) == fit_words(own):
        return ()
    return (f"images are {fit_words(transform)}; the transform of the weights: {fit_words(own)}",)


def _colour(transform: Transform) -> str:
    levels = ", ".join(map(str, transform.padding[:3]))
    return f"the network's mean colour ({levels}{', …' * (transform.channels > 3)})"
