"""The cache as a torch dataset: each word once, the same batches however the work is shared; docs/own-loop.md runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from cache.errors import WrongUse
from cache.space import open_space
from train.data.word_batches import MemoryLoader
from train.data.words import read_words
from train.dataset import MemoryDataset

ROOT = Path(__file__).parents[2]
NUMBERS = set(map(str, range(900)))


def labels(batches):
    return [label for batch in batches for label in batch["labels"]]


def equal(a, b):
    return a["labels"] == b["labels"] and all(torch.equal(a[n], b[n]) for n in ("memory", "mask", "targets"))


def test_an_epoch_has_each_word_once_with_its_memory(cache):
    data = MemoryDataset(cache, "numbers", batch=64)
    found = list(data)
    assert len(found) == len(data) == 15
    assert sorted(labels(found)) == sorted(NUMBERS)
    space = open_space(cache)
    words, _ = read_words(space, ["numbers"], data.charset, 25)
    loader, number = MemoryLoader(space, torch.device("cpu")), {label: n for n, label in enumerate(words.labels)}
    for batch in found[:3]:
        B, M, _ = batch["memory"].shape
        assert batch["mask"].shape == (B, M)
        assert data.charset.decode(batch["targets"][:, 1:]) == batch["labels"]
        for row, label in enumerate(batch["labels"]):
            alone, _ = loader.load(words.take([number[label]]))
            assert torch.allclose(batch["memory"][row][batch["mask"][row]], alone[0], atol=1e-5)
            assert not batch["memory"][row][~batch["mask"][row]].any()


def test_epochs_differ_and_come_again(cache):
    data = MemoryDataset(cache, "numbers", bank="noise", perturb="orp(10%)", batch=64)
    first = list(data)
    assert all(map(equal, first, data))
    data.set_epoch(1)
    assert labels(data) != labels(first)
    assert set(labels(data)) == set(labels(first))


def test_workers_change_nothing(cache):
    data = MemoryDataset(cache, "numbers", bank="noise", batch=100)
    alone, shared = list(data), list(DataLoader(data, batch_size=None, num_workers=2))
    assert len(alone) == len(shared) == 9
    assert all(map(equal, alone, shared))


def test_ranks_share_an_epoch(cache):
    parts = [labels(MemoryDataset(cache, "numbers", batch=50, rank=rank, ranks=3)) for rank in range(3)]
    assert [len(part) for part in parts] == [300, 300, 300]
    assert set().union(*parts) == NUMBERS


def test_held_out_words_are_not_among_the_others_and_unperturbed(cache):
    data = MemoryDataset(cache, "numbers", bank="noise", perturb="orp(1)", held_out=0.2, batch=64)
    plain = MemoryDataset(cache, "numbers", held_out=0.2, batch=64)
    kept = list(data.held_out())
    assert set(labels(kept)) | set(labels(data)) == NUMBERS
    assert not set(labels(kept)) & set(labels(data))
    assert all(map(equal, kept, plain.held_out()))
    assert not torch.equal(next(iter(data))["memory"], next(iter(plain))["memory"])


@pytest.mark.parametrize(
    ("corpus", "changes", "message"),
    [
        ("none", {}, "no corpus 'none'"),
        ("numbers", {"bank": "none"}, "no bank 'none'"),
        ("numbers", {"perturb": "orp"}, "orp needs photographs"),
        ("numbers", {"batch": 0}, "batch must be at least 1"),
    ],
)
def test_what_is_not_there_is_said(cache, corpus, changes, message):
    with pytest.raises(WrongUse, match=message):
        MemoryDataset(cache, corpus, **changes)


def test_the_loop_of_the_documentation_runs(cache, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-loop.md").read_text(), re.S)
    example = example.replace('"dptr-cache", "words", bank="photos"', f'{str(cache)!r}, "numbers", bank="noise"')
    # so that importing open_clip fails; and torch's compiler, which nothing here asks for, takes as long as all else
    without = "import sys, types\nno = types.SimpleNamespace(disable=lambda f, *_, **__: f, graph_break=lambda: None)\n"
    without += "sys.modules |= {'open_clip': None, 'torch._dynamo': no}\n"
    done = subprocess.run(
        [sys.executable, "-c", without + example], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
