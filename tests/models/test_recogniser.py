"""What a recogniser's loss is made of."""

import pytest
import torch

from models.decoders import configure
from models.image_encoder import released_vit
from models.recogniser import Recogniser, RecogniserConfig, unexplained


def test_unexplained_variance_as_written_out():
    """Over 4 pictures, 3 tokens, 2 features: squared differences, divided by those from the mean over pictures."""
    torch.manual_seed(0)
    memory, taught = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    wrong = sum((a - b) ** 2 for a, b in zip(memory.flatten().tolist(), taught.flatten().tolist(), strict=True))
    spread = 0.0
    for token in range(3):
        for feature in range(2):
            values = taught[:, token, feature].tolist()
            spread += sum((value - sum(values) / 4) ** 2 for value in values)
    assert unexplained(memory, taught).item() == pytest.approx(wrong / spread, rel=1e-5)
    assert unexplained(taught, taught) == 0
    assert unexplained(taught.mean(0).expand(4, 3, 2), taught).item() == pytest.approx(1, rel=1e-6)
    assert unexplained(memory[:1], taught[:1]) == 0  # no variance


def test_taught_memories_add_to_the_loss():
    """The decoder's loss is as it was, and how far the memory is from the taught one comes on top."""
    torch.manual_seed(0)
    made = Recogniser(
        RecogniserConfig(released_vit(32), configure("nrtr", memory_width=32, width=32, heads=2), 4)
    ).eval()
    pictures = torch.randint(0, 256, (3, 3, 32, 128), dtype=torch.uint8)
    targets = made.charset.encode(["a", "bc", "d"])
    taught = torch.randn(3, 4, 32)
    more = made.loss(pictures, targets, taught) - made.loss(pictures, targets)
    assert more.item() == pytest.approx(unexplained(made.memory(pictures), taught).item(), rel=1e-3)
