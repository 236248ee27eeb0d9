"""Work on several devices comes back in order, and in halves where a device's memory is too small."""

import time

import pytest
import torch

from cache.errors import DptrError
from pipeline.encoder import Encoder
from pipeline.towers.replicas import Replicas
from tests.conftest import WORDS

CPU = torch.device("cpu")


class Doubling:
    """Doubles its input, more slowly for odd numbers; like a GPU, it has room for only `room` rows."""

    def __init__(self, room: int = 100) -> None:
        self.room, self.rows = room, []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("not in this test's memory")
        time.sleep(0.01 * (int(x[0]) % 2))
        return 2 * x


def batches(sizes):
    for n, size in enumerate(sizes):
        yield n, (torch.arange(n, n + size),)


def test_results_come_in_order_from_all_devices():
    made = []
    replicas = Replicas([CPU, CPU, CPU], lambda device: made.append(Doubling()) or made[-1])
    found = list(replicas.map(batches([3] * 10)))
    assert [n for n, _ in found] == list(range(10))
    for n, result in found:
        assert result.dtype == torch.float16
        assert result.tolist() == [2 * n, 2 * n + 2, 2 * n + 4]
    assert [len(m.rows) for m in made] == [4, 3, 3]
    assert replicas.busy > 0.01


def test_a_batch_that_does_not_fit_is_halved_and_said(capsys):
    module = Doubling(room=4)
    replicas = Replicas([CPU], lambda device: module)
    found = list(replicas.map(batches([13, 13, 2])))
    assert [result.tolist() for _, result in found] == [
        [2 * k for k in range(n, n + size)] for n, size in enumerate([13, 13, 2])
    ]
    assert module.rows == [13, 6, 3, 3, 3, 3, 1, 3, 3, 3, 3, 1, 2]  # what did not fit once is not tried again
    text = capsys.readouterr()
    assert "cpu ran out of memory with 13 rows: going on with 6 at a time." in text.err
    assert not text.out


def test_a_row_that_does_not_fit_is_one_sentence():
    replicas = Replicas([CPU], lambda device: Doubling(room=0))
    with pytest.raises(DptrError, match="a single row does not fit .*--device cpu"):
        list(replicas.map(batches([4])))


def test_an_error_ends_the_work():
    def failing(x):
        raise DptrError("no")

    replicas = Replicas([CPU, CPU], lambda device: failing)
    with pytest.raises(DptrError, match="no"):
        list(replicas.map(batches([1] * 100)))


def test_several_devices_give_the_bytes_of_one(encoder, monkeypatch):
    monkeypatch.setattr("pipeline.encoder.choose_devices", lambda device: [CPU, CPU])
    monkeypatch.setattr("pipeline.towers.causal_text.POSITIONS", {"cpu": 64})
    ids = [encoder.prompt.ids(f"{word}{n}") for word in WORDS for n in range(30)]
    two = Encoder("tiny", "untrained:1", precision="fp32")
    one = Encoder("tiny", "untrained:1", precision="fp32")
    one.devices = [CPU]
    assert (two.text_states(ids) == one.text_states(ids)).all()
    pictures = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = dict(two.encoded((n, pictures[n : n + 1]) for n in range(5)))
    assert all((found[n] == one.image_tokens(pictures[n : n + 1])).all() for n in range(5))


@pytest.mark.gpu
def test_a_gpu_that_is_full_goes_on_with_less(tiny_models, capsys):
    encoder = Encoder("tiny", "untrained:1", precision="fp32", device="cuda:0")
    pictures = torch.randn(4096, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = encoder.image_tokens(pictures)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (300 << 20)) / total)
    try:
        found = encoder.image_tokens(pictures)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory" in capsys.readouterr().err
    assert abs(found - expected).max() < 5e-3
