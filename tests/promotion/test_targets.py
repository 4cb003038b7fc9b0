"""What a network is trained towards: labels, and a teacher's probabilities."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from featx.promotion.targets import Targets, distillation_losses


def test_the_pull_of_a_teacher_is_the_difference_of_the_softened_probabilities_times_the_temperature() -> None:
    torch.manual_seed(0)
    teacher, logits = torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)
    distillation_losses(logits, teacher, 4.0).sum().backward()
    expected = 4.0 * (
        F.softmax(logits.detach() / 4, dim=1) - F.softmax(teacher / 4, dim=1)
    )  # Hinton et al., 2015, eq. 2
    torch.testing.assert_close(logits.grad, expected)


def test_targets_are_cut_and_reversed_together() -> None:
    targets = Targets(torch.arange(3), torch.arange(6.0).reshape(3, 2))
    assert len(targets) == 3
    assert targets[1:].labels.tolist() == [1, 2]
    assert targets.flip().labels.tolist() == [2, 1, 0]
    assert targets.teacher is not None
    assert targets[1:].teacher is not None
    assert targets[1:].teacher.tolist() == [[2, 3], [4, 5]] == targets.flip().teacher.flip(0)[1:].tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_network_that_says_what_its_teacher_says_has_no_loss(temperature: float) -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5]])
    assert float(distillation_losses(logits + 7, logits, temperature)) == pytest.approx(0, abs=1e-6)
    assert float(distillation_losses(-logits, logits, temperature)) > 0.1
