"""Replayed steps are the steps that they replay; a stand-in for CUDA graphs shows it without a GPU."""

from dataclasses import dataclass, replace

import pytest
import torch

import train.step
from models.charset import Charset
from tests.helpers.decoders import ragged, small
from train.replay import Replay
from train.step import Pace, Step

WORDS = ["a", "word", "Exit", "12:30", "street", "x"]


class Again:
    """Records a call by keeping it: each replay computes it from the inputs as they are then."""

    def __init__(self, device):
        self.recorded = 0

    def warm(self, call):
        return call()

    def record(self, call):
        self.recorded += 1
        found = torch.zeros(())
        return lambda: found.copy_(call()), found


@dataclass(frozen=True)
class Batch:
    memory: torch.Tensor
    mask: torch.Tensor | None
    targets: torch.Tensor
    labels: list[str]
    drawn: torch.Tensor | None = None


def batches():
    """Twelve, of three shapes; one of them has no mask."""
    torch.manual_seed(0)
    for n in range(12):
        lengths = [[3, 7, 5, 4, 6, 2], [2, 2, 5, 4, 3, 1], [5] * 6][n % 3]
        memory, mask, _ = ragged(6, 24, lengths)
        words = WORDS if n % 3 else [*WORDS[:5], "longest"]
        yield Batch(memory, None if n % 3 == 2 else mask, Charset().encode(words), words)


def test_results_are_those_of_the_calls_and_are_kept():
    again = Again(torch.device("cpu"))
    replayed = Replay(lambda batch: batch.memory.sum() + batch.targets.sum(), again)
    found = [(replayed(batch), batch.memory.sum() + batch.targets.sum()) for batch in batches()]
    assert all(torch.equal(a, b) for a, b in found)
    assert again.recorded == 3


@pytest.mark.parametrize("kind", ["parseq", "nrtr", "abinet", "mdiff"])
def test_steps_change_the_weights_as_eager_ones_do(kind, monkeypatch):
    monkeypatch.setattr(train.step, "CudaGraphs", Again)
    eager, other = small(kind, dropout=0.1), small(kind, dropout=0.1)
    pace = Pace(12, 12, torch.device("cpu"), "fp32", seed=3, ema=0.9)
    for decoder, drawn in ((eager, None), (other, lambda batch: replace(batch, drawn=other.drawn(batch.targets)))):
        step = Step(decoder, [{"params": list(decoder.parameters()), "peak": 1e-3}], pace, drawn)
        for number, batch in enumerate(batches(), 1):
            step(number, lambda b, d=decoder: _loss(d, b), batch, recorded=number != 8)
    for (name, a), b in zip(eager.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


def _loss(decoder, batch):
    more = () if batch.drawn is None else (batch.drawn,)
    return decoder.loss(batch.memory, batch.mask, batch.targets, *more), decoder.predictions(batch.targets)
