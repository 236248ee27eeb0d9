"""Kinds that change which rows there are: how many, which, and that padding stays padding."""

import pytest
import torch

from train.perturb.rows import Drop, Stretch, Swap

B, M, D = 200, 12, 3
COUNTS = 2 + torch.arange(B) % (M - 1)  # 2 to 12 rows
MASK = torch.arange(M) < COUNTS[:, None]


def batch():
    """Row m of word b is b * 100 + m in every dimension; padding is -1."""
    rows = torch.arange(B)[:, None] * 100.0 + torch.arange(M)
    return rows.where(MASK, -1)[..., None].expand(B, M, D)


def seeded(part, memory, mask):
    found, there = part(memory, mask, torch.Generator().manual_seed(0))
    again, _ = part(memory, mask, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)
    assert found.dtype == memory.dtype
    return found, there


@pytest.mark.parametrize("share", [0.3, 1.0, 2.5])
def test_stretch_keeps_every_row_in_its_order(share):
    found, there = seeded(Stretch(share), batch() + 1, MASK)  # + 1: no row is zeros but a blank
    blanks = copies = 0
    uses = torch.zeros(M)
    for n in range(B):
        count = int(COUNTS[n])
        extra = -(-round(share * 10 * count) // 10)
        assert int(there[n].sum()) == count + extra
        assert there[n, : count + extra].all()
        rows = found[n, : count + extra, 0]
        there_is = rows[rows != 0] - n * 100 - 1
        assert there_is.unique().tolist() == list(range(count))
        assert (there_is.diff() >= 0).all()
        assert (there_is == 0).sum() == 1  # the word as a whole
        assert rows[0] != 0
        blanks += int((rows == 0).sum())
        copies += len(there_is) - count
        uses[:count] += torch.bincount(there_is.long(), minlength=count) - 1
    assert blanks / (blanks + copies) == pytest.approx(0.5, abs=0.06)
    assert not found[~there].any()


def test_stretch_repeats_rows_equally_often():
    memory = batch()[-1:, :, :].expand(4000, M, D) * 0 + torch.arange(M)[:, None]
    found, there = seeded(Stretch(1.0, blanks=0.0), memory, None)
    assert there.all()
    uses = torch.bincount(found[..., 0].flatten().long(), minlength=M)
    assert uses[0] == 4000
    assert (uses[1:] / 4000 - 1 - M / (M - 1)).abs().max() < 0.06


def test_drop_leaves_out_its_share_but_never_the_first_row():
    found, there = seeded(Drop(0.4), batch(), MASK)
    assert there[:, 0].all()
    assert not (there & ~MASK).any()
    assert torch.equal(found[there], batch()[there])
    rest = MASK.clone()
    rest[:, 0] = False
    assert float(there[rest].float().mean()) == pytest.approx(0.6, abs=0.05)
    assert Drop(1.0)(batch(), None)[1].sum() == B


def test_swap_brings_rows_of_other_words():
    found, there = seeded(Swap(0.4), batch(), MASK)
    assert there is MASK
    rows, before = found[..., 0], batch()[..., 0]
    changed = (rows != before) & MASK
    assert not changed[:, 0].any()
    rest = MASK.clone()
    rest[:, 0] = False
    assert float(changed[rest].float().mean()) == pytest.approx(0.4, abs=0.05)
    word, row = rows[changed].long() // 100, rows[changed].long() % 100
    assert (word != torch.arange(B)[:, None].expand(B, M)[changed]).all()
    assert (row >= 1).all()
    assert (row < COUNTS[word]).all()
    assert len(word.unique()) > B * 0.8
    alone = batch()[:1]
    assert torch.equal(Swap(1.0)(alone, None)[0], alone)


@pytest.mark.parametrize("part", [Stretch(0.3), Drop(0.4), Swap(0.4)])
def test_nothing_is_drawn_in_evaluation(part):
    memory = batch()
    found, mask = part.evaluated(memory, MASK)
    assert found is memory
    assert mask is MASK
    assert part.inference(memory) is memory


@pytest.mark.parametrize("part", [Stretch(0.3), Drop(0.4), Swap(0.4)])
def test_words_of_one_row_do_not_break(part):
    memory = torch.ones(3, 1, D)
    found, _ = part(memory, None)
    assert torch.equal(found[:, :1], memory)
    lone = torch.arange(4) < torch.ones(3, 1)
    found, there = part(torch.ones(3, 4, D), lone)
    assert torch.equal(found[:, 0], torch.ones(3, D))
    assert there.sum() == 3
