"""A linear layer trained by minibatches: the torch solver behind ``--model linear``."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

EPOCHS, PATIENCE, BATCH = 200, 20, 256
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 1e-2
SELECTION_SHARE = 0.1


def fit_linear(Z: np.ndarray, y: np.ndarray, count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy by AdamW with a cosine schedule; stops early on a tenth of the rows, stratified, and keeps the best.

    Args:
        Z: (N, D) standardised features.
        y: (N,) int64 in 0..C-1.
        count: C.
        seed: of the held-back tenth, the batches and their order.

    Returns:
        (C, D) and (C,) float64.
    """
    rng = np.random.default_rng(seed)
    selection = _stratified_share(y, rng)
    train = np.setdiff1d(np.arange(len(y)), selection)
    features, labels = torch.from_numpy(Z.astype(np.float32)), torch.from_numpy(y)
    weight = torch.zeros(count, Z.shape[1], requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    best, best_epoch = (float("inf"), weight.detach().clone(), bias.detach().clone()), 0
    for epoch in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(train))
        for rows in order.split(BATCH):
            loss = F.cross_entropy(F.linear(features[rows], weight, bias), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            watched = selection if len(selection) else train
            loss_there = F.cross_entropy(F.linear(features[watched], weight, bias), labels[watched]).item()
        if loss_there < best[0]:
            best, best_epoch = (loss_there, weight.detach().clone(), bias.detach().clone()), epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    return best[1].double().numpy(), best[2].double().numpy()


def _stratified_share(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows to hold back: a tenth of each class, rounded down; of classes under ten rows none, since one row tells nothing."""
    held = []
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        held.append(rng.permutation(rows)[: int(SELECTION_SHARE * len(rows))])
    return np.sort(np.concatenate(held))
