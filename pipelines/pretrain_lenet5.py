"""Make the embedded LeNet-5: train it on the digits 0-4 alone, seeded.

    python pipelines/pretrain_lenet5.py

It takes about a minute on two cores and writes featx/data/lenet5-digits.safetensors (247 kB). The digits 5-9, which
the demo transfers to, are never read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.transforms import v2

from featx.backbones import registry
from featx.backbones.architectures import LeNet5
from featx.backbones.pixels import normalise
from featx.data.decode import read_pixels
from featx.data.image_set import PRETRAIN
from featx.data.scan import scan_images

EPOCHS, BATCH, RATE, SEED = 60, 64, 2e-3, 0
OUT = Path(__file__).resolve().parent.parent / "featx" / "backbones" / "lenet5-digits.safetensors"


def main() -> None:
    """Train, say how well, save."""
    torch.manual_seed(SEED)
    images = scan_images("digits")
    rows = np.flatnonzero(images.splits == PRETRAIN)
    transform = registry.build("lenet5", "random").transform
    pixels = torch.stack([torch.from_numpy(read_pixels(images.file(int(row)).read().data, transform)) for row in rows])
    labels = torch.from_numpy(images.labels[rows])  # 0-4, which are also the first five classes
    held = torch.arange(len(rows)) % 10 == 0
    network = LeNet5()
    augment = v2.Compose(
        [v2.RandomAffine(degrees=25, translate=(0.1, 0.1), scale=(0.75, 1.3), shear=12), v2.ElasticTransform(40.0, 4.0)]
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    steps = EPOCHS * -(-int((~held).sum()) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(1, EPOCHS + 1):
        network.train()
        for batch in torch.randperm(int((~held).sum())).split(BATCH):
            chosen = torch.stack([augment(image) for image in pixels[~held][batch]])
            loss = F.cross_entropy(network(normalise(chosen, transform)), labels[~held][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 0:
            network.eval()
            with torch.no_grad():
                right = network(normalise(pixels[held], transform)).argmax(1) == labels[held]
            print(
                f"epoch {epoch}: loss {loss.item():.3f}, {int(right.sum())} of {len(right)} held-out digits 0-4 right"
            )
    OUT.parent.mkdir(exist_ok=True)
    save_file(network.state_dict(), OUT, metadata={"trained_on": "scikit-learn digits 0-4", "by": "pretrain_lenet5.py"})
    print(f"{OUT.name}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
