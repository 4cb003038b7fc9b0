"""An inspection of images in an archive: its page shows them, and its table is read with the archive as root."""

from __future__ import annotations

import shlex
from pathlib import Path

from archives import folder_of, make_tar
from listings import MakeImage

import featx


def test_images_in_an_archive_are_shown_and_corrected(tmp_path: Path, make_image: MakeImage) -> None:
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(6):
            make_image(tmp_path / "few" / label / f"{number}.png", seed=number + tint, tint=tint)
    archive = make_tar(tmp_path / "few.tar.xz", dict(reversed(folder_of(tmp_path / "few").items())), "xz")
    backbone = featx.load_backbone("lenet5", device="cpu")
    extraction = featx.extract(archive, backbone, cache=tmp_path / "cache")
    inspection = featx.inspect(extraction.file)
    assert inspection.pixels is not None
    assert inspection.pixels.unread == 0
    corrected = featx.write_fixed_table(inspection, tmp_path / "fixed.csv", leaks="keep")
    words = shlex.split(corrected.commands[0])
    assert words[:5] == ["featx", "extract", str(corrected.path), "--root", str(archive)]
    images = featx.scan_images(corrected.path, root=words[4])
    assert images.paths[0] == "dark/0.png"
    again = featx.extract(images, backbone, cache=tmp_path / "cache")
    assert (again.images, again.computed) == (12, 0)
