"""Data sets that are made, not collected: unlike photographs, or photographs with labels that no photographer gave."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from featx.data.scan import scan_images

SIDE = 224


def made(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Make a data set.

    Args:
        name: "rotations:PHOTOGRAPHS", "spectra", "dots" or "letters".
        folder: for its images.
        seed: of all chance.

    Returns:
        Its table.
    """
    kind, _, photographs = name.partition(":")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images = rotations(Path(photographs), rng) if kind == "rotations" else MADE[kind](rng)
    table = folder / f"{kind}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for number, (pixels, label) in enumerate(images):
            path = folder / f"{number:04d}.png"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
            rows.writerow([path.resolve(), label])
    return table


def rotations(photographs: Path, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, str]]:
    """Photographs turned by a multiple of 90 degrees, which is the class (Gidaris et al., 2018)."""
    images = scan_images(photographs)
    for path in images.paths:
        turns = int(rng.integers(4))
        with Image.open(Path(images.root) / str(path)) as image:
            pixels = np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.BICUBIC))
        yield np.rot90(pixels, turns), f"turned {90 * turns}"


def spectra(rng: np.random.Generator, count: int = 800) -> Iterator[tuple[np.ndarray, str]]:
    """Grey noise whose amplitude falls as one of four powers of the frequency, and is as large in all directions or is not."""
    frequencies = np.fft.fftfreq(SIDE)
    x, y = np.meshgrid(frequencies, frequencies)
    radius, angle = np.hypot(x, y) + 1 / SIDE, np.arctan2(y, x)
    for _ in range(count):
        kind = int(rng.integers(8))
        power, favour = (0.8, 1.0, 1.2, 1.4)[kind % 4] + rng.normal(0, 0.05), (0.0, 0.25)[kind // 4]
        amplitude = radius**-power * (1 + favour * np.cos(2 * (angle - rng.uniform(0, np.pi))))
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * amplitude).real
        grey = (noise - noise.mean()) / noise.std() * 40 + 128
        yield np.repeat(grey[:, :, None], 3, axis=2), f"spectrum {kind}"


def dots(rng: np.random.Generator, count: int = 2066, side: int = 160) -> Iterator[tuple[np.ndarray, str]]:
    """One to six dots of any colour and size on a plain ground, to be counted."""
    y, x = np.mgrid[:side, :side]
    for _ in range(count):
        number = int(rng.integers(1, 7))
        pixels = np.full((side, side, 3), rng.integers(150, 255, 3), dtype=np.float64)
        places: list[np.ndarray] = []
        while len(places) < number:
            place = rng.uniform(15, side - 15, 2)
            if all(np.hypot(*(place - other)) > 26 for other in places):
                places.append(place)
        for place in places:
            pixels[np.hypot(x - place[0], y - place[1]) < rng.uniform(5, 12)] = rng.integers(0, 120, 3)
        yield pixels + rng.normal(0, 8, pixels.shape), f"{number} dots"


def letters(rng: np.random.Generator, count: int = 1560, side: int = 160) -> Iterator[tuple[np.ndarray, str]]:
    """The 26 letters, large and small, in sixteen typefaces of matplotlib, in any two colours, tilted and blurred."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = sorted(path for path in folder.glob("*.ttf") if path.stem.startswith(("DejaVu", "STIXGeneral")))
    faces = [path for path in faces if "Display" not in path.stem]
    for number in range(count):
        letter = chr(ord("A") + number % 26)
        ground, ink = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
        while abs(int(ground.sum()) - int(ink.sum())) < 90:
            ink = rng.integers(0, 256, 3)
        shape = Image.new("L", (side, side), 0)
        face = ImageFont.truetype(str(faces[rng.integers(len(faces))]), int(rng.integers(50, 120)))
        place = tuple(side // 2 + rng.integers(-20, 21, 2))
        drawn = letter if rng.random() < 0.5 else letter.lower()
        ImageDraw.Draw(shape).text(place, drawn, fill=255, font=face, anchor="mm")
        shape = shape.rotate(float(rng.uniform(-25, 25)), resample=Image.Resampling.BICUBIC)
        image = Image.new("RGB", (side, side), tuple(ground.tolist()))
        image.paste(tuple(ink.tolist()), mask=shape)
        noisy = np.clip(np.asarray(image) + rng.normal(0, 15, (side, side, 3)), 0, 255).astype(np.uint8)
        yield (
            np.asarray(Image.fromarray(noisy).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 2))))),
            f"letter {letter}",
        )


MADE: dict[str, Callable[[np.random.Generator], Iterator[tuple[np.ndarray, str]]]] = {
    "spectra": spectra, "dots": dots, "letters": letters,
}  # fmt: skip
