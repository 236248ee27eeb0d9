"""Fine-tuning on pictures that are drawn: each is another, and a run that was stopped draws the same ones."""

import json
import time
from dataclasses import replace
from multiprocessing import active_children

import pytest
import torch

from cache.errors import WrongUse
from models.charset import Charset
from sources.drawn.drawn_set import drawn_set
from tests.helpers.drawing import SCENERY, WRITING
from tests.helpers.pictures import NUMBERS
from tests.helpers.pictures import drawn_set as real_set
from tests.helpers.stopped import stopped_at
from train.data.crop_batches import Pictures, load, schedule
from train.data.crops import usable
from train.data.plan import Plan
from train.finetune import finetune
from train.finetune_options import check
from train.run import LAST, load_checkpoint

WORDS = ["hotel", "cafe", "street", "station", "market", "garden"]


def sets():
    return [drawn_set("drawn:words", WORDS, WRITING, SCENERY, 0.3), real_set(NUMBERS[:6])]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(workers):
    crops = usable(sets(), Charset(), 25)
    made = Pictures(crops, (16, 64), strength=1.0, seed=5)
    batches = [numbers for epoch in range(2) for numbers in schedule(crops, [1.0, 1.0], Plan(4, 5), epoch)]
    alone, shared = list(load(made, batches, 0)), list(load(made, batches, workers))
    for one, other in zip(alone, shared, strict=True):
        assert one.labels == other.labels
        assert torch.equal(one.pictures, other.pictures)
        assert all(Charset().holds(label) for label in one.labels)
    seen = {}
    for batch in alone:
        for n, picture, label in zip(batch.numbers, batch.pictures, batch.labels, strict=True):
            seen.setdefault(n, []).append((picture, label))
    assert len(seen) == 15
    for n, ((first, one), (second, other)) in seen.items():
        if n < 9:
            assert not torch.equal(first, second)
        if n < 6:
            assert one.casefold() == other.casefold() == WORDS[n]


def test_weights_mix_drawn_and_real_pictures():
    crops = usable(sets(), Charset(), 25)
    numbers = [int(n) for batch in schedule(crops, [1.0, 3.0], Plan(4, 0), 0) for n in batch]
    assert sum(n < 9 for n in numbers) == 9
    assert sum(n >= 9 for n in numbers) == 18


def test_stopped_in_an_epoch_and_continued_is_the_undisturbed_run(finetuning, material, monkeypatch):
    """Whatever the workers: seven batches of an epoch of eight are drawn before it stops. It waits for no others."""
    mixed = replace(material, train=[[one] for one in sets()])
    options = replace(finetuning, train=["drawn:words", "x"], weight=[2.0, 1.0], batch=3, steps=12, eval_every=12)
    whole = replace(options, out=options.out.with_name("whole"))
    summary = finetune(whole, mixed, print)
    assert summary.crops == 15
    resolved = json.loads((whole.out / "config.json").read_text())["resolved"]
    assert resolved["drawn"] == {"drawn:words": mixed.train[0][0].drawn_from}
    draw, before = Pictures.__getitem__, set(active_children())

    def slow(self, item):
        time.sleep(60 if item[0] >= 7 else 0)
        return draw(self, item)

    with monkeypatch.context() as patch, stopped_at(7, 12):
        patch.setattr(Pictures, "__getitem__", slow)
        finetune(replace(options, workers=2), mixed, print)
    assert set(active_children()) <= before
    other = replace(mixed, train=[[drawn_set("drawn:words", WORDS[1:], WRITING, SCENERY, 0.3)], mixed.train[1]])
    with pytest.raises(WrongUse, match="a different configuration .*drawn drawn:words"):
        finetune(options, other, print)
    finetune(options, replace(mixed, train=[[one] for one in sets()]), print)
    one, same = (load_checkpoint(run, LAST)["model"] for run in (whole.out, options.out))
    assert all(torch.equal(one[name], same[name]) for name in {*one, *same})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ["drawn:en"], "freeze": True}, "drawn: never draws one twice"),
        ({"val": ["drawn:en"]}, "--val takes pictures that stay as they are"),
        ({"behind": ["photos"]}, "add a --train drawn:WORDS"),
        ({"hard_words": 1.0}, "--hard-words must be from 0 to below 1, not 1."),
    ],
)
def test_wrong_use_is_one_sentence(finetuning, changes, message):
    with pytest.raises(WrongUse, match=message):
        check(replace(finetuning, **changes))
