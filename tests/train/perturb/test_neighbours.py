"""Which photographs are drawn, and how often: of a word's own neighbours, or evenly from cells."""

import shutil

import numpy as np
import pytest
import torch

from cache.errors import DptrError
from cache.space import open_space
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.helpers.perturb import material
from train.dataset import MemoryDataset
from train.perturb.grammar import Amount
from train.perturb.neighbours import Far, Nearest, Spread

TABLES = {  # of four memories, the second of which has the same on both sides
    "near": np.array([[3, 1, 4], [0, 2, 5], [5, 9, 7], [8, 8, 8]], np.int32),
    "far": np.array([[7, 6, 2], [0, 2, 5], [1, 0, 3], [6, 4, 9]], np.int32),
}


def numbered(N, T, D=4):
    """Token t of photograph n is n * 100 + t in every dimension."""
    return (torch.arange(N)[:, None] * 100 + torch.arange(T))[..., None].expand(N, T, D).half()


def drawn(made, numbers, rounds=300, M=5):
    """How often each photograph was drawn for each sample, (B, N), from what was added to zeros."""
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(len(numbers), made.photographs.count)
    for _ in range(rounds):
        more = (numbers,) if made.needs_numbers else ()
        rows = made(torch.zeros(len(numbers), M, 4), None, generator, *more)[0][..., 0] / made.factor
        photographs = (rows.round() // 100).long()
        assert (photographs == photographs[:, :1]).all()
        counts[torch.arange(len(numbers)), photographs[:, 0]] += 1
    return counts


@pytest.mark.parametrize("kind", [Nearest, Far])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_each_of_a_words_neighbours_is_drawn_as_often(tmp_path, kind, k):
    made = kind(Amount(1.0), k=k)
    made.prepare(material(tmp_path, torch.ones(3, 4), numbered(10, 6), table=TABLES.__getitem__))
    numbers = torch.tensor([2, 0, 0, 3, 1])
    counts = drawn(made, numbers)
    for number, row in zip(numbers.tolist(), counts, strict=True):
        expected = np.bincount(TABLES[made.side][number, :k], minlength=10) * 300 / k
        assert (row[expected == 0] == 0).all()
        assert float(((row - torch.from_numpy(expected)) ** 2)[expected > 0].sum() / (300 / k)) < 13.9  # as in test_orp
    assert f"the {k} {'nearest to' if kind is Nearest else 'farthest from'} each word" in made.describe()


def test_more_neighbours_than_the_table_has_are_an_error(tmp_path):
    given = material(tmp_path, torch.ones(3, 4), numbered(10, 6), table=TABLES.__getitem__)
    with pytest.raises(DptrError, match="nearest with k=4 needs more than the 3 neighbours .* --k 4, or ask"):
        Nearest(k=4).prepare(given)
    few = material(tmp_path / "few", torch.ones(3, 4), numbered(3, 6), table=lambda side: TABLES[side] % 3)
    Nearest(k=32).prepare(few)  # all photographs that there are


def test_cells_are_drawn_as_often_however_many_photographs_they_have(tmp_path):
    """A crowd of 90 like photographs, and 10 of another kind, which get half of all draws."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(100, 3, 4, generator=random) * 0.01
    features[:90, 0, 0] += 1
    features[90:, 0, 1] += 1
    given = material(tmp_path, torch.ones(3, 4), features)
    given.cells = torch.tensor([0] * 90 + [2] * 10)  # and cell 1 is empty
    made = Spread(Amount(1.0))
    made.prepare(given)
    generator = torch.Generator().manual_seed(1)
    counts = sum(torch.bincount(made.draw(8, 5, generator)[0], minlength=100) for _ in range(500))
    assert counts[:90].sum() == counts[90:].sum() == 2000
    assert (counts[90:] - 200).abs().max() < 60
    assert (counts[:90] - 22.2).abs().max() < 25
    assert "drawn evenly from 2 cells" in made.describe()


def test_cells_of_a_bank_are_kinds_of_scenes(tmp_path):
    """Those that k-means finds in a small bank: none has photographs of both kinds."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(200, 3, 4, generator=random) * 0.05
    features[:195, 0, 0] += 1
    features[195:, 0, 1] += 1
    given = material(tmp_path, torch.ones(3, 4), features)
    assert len(given.cells.unique()) > 4
    assert not set(given.cells[:195].tolist()) & set(given.cells[195:].tolist())
    made = Spread()
    made.prepare(given)
    generator = torch.Generator().manual_seed(1)
    rare = sum(int((made.draw(16, 5, generator)[0] >= 195).sum()) for _ in range(200)) / 3200
    assert rare > 2 * 5 / 200
    assert torch.equal(given.cells, material(tmp_path / "again", torch.ones(3, 4), features).cells)


def test_words_get_the_photographs_of_their_table(cache):
    """A dataset over the cache: what is added to a word is of one of its own two nearest photographs."""
    plain = MemoryDataset(cache, "numbers", batch=50, held_out=0.5)
    near = MemoryDataset(cache, "numbers", bank="noise", perturb="nearest(1, k=2)", batch=50, held_out=0.5)
    space = open_space(cache)
    table = space.neighbours("noise").read("near", space.memories, space.bank("noise"))[:, :2]
    corpus = space.existing_corpus("numbers")
    numbers = dict(zip(corpus.labels(), space.memory_numbers(corpus).tolist(), strict=True))
    features = torch.from_numpy(space.bank("noise").features()).float()
    chosen = set()
    for before, after in zip(plain, near, strict=True):
        assert before["labels"] == after["labels"]
        added = (after["memory"] - before["memory"])[:, 0]
        distance = (features[None] - added[:, None, None]).norm(dim=-1).amin(-1)  # (B, photographs)
        for label, photograph in zip(after["labels"], distance.argmin(1).tolist(), strict=True):
            assert photograph in table[numbers[label]]
            chosen.add(np.flatnonzero(table[numbers[label]] == photograph)[0])
    assert chosen == {0, 1}


def test_words_without_neighbours_are_counted(cache, tmp_path, encoder):
    folder = shutil.copytree(cache, tmp_path / "cache")
    embed_text(folder, encoder, collect(["new", "words"]), "more", print)
    with pytest.raises(DptrError, match="2 of 2 words have no neighbours in bank 'noise': run dptr neighbours CORPUS"):
        MemoryDataset(folder, "more", bank="noise", perturb="nearest", held_out=0.0)
