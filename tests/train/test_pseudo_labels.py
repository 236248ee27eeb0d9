"""Pictures without labels teach what the reader is sure of; a run that was stopped goes on number for number."""

import json
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cache.errors import WrongUse
from models.decoders import configure
from models.device import autocast
from models.recogniser import Recogniser, RecogniserConfig
from sources.labelled import Labelled
from sources.missing import UNLABELLED, NoText
from tests.helpers.pictures import NUMBERS, drawn
from tests.helpers.stopped import stopped_at
from tests.train.export.test_export import pictures as noise
from tests.train.export.test_export import scattered, vision
from train.data.crop_batches import CropBatch, Pictures, TwoViews
from train.data.crops import without_labels
from train.finetune import finetune
from train.finetune_options import check
from train.loop import Progress
from train.pseudo_labels import PseudoLabels
from train.ranks import Ranks
from train.run import LAST, load_checkpoint
from train.step import Average

SIGNS = Labelled("signs", ["41"] * 16, lambda _: drawn("41"))  # read right after a few steps
CPU = torch.device("cpu")


def pictures(labels, damaged=()):
    return Labelled("more", [NoText(UNLABELLED)] * len(labels), lambda n: b"none" if n in damaged else drawn(labels[n]))


@pytest.fixture
def options(finetuning):
    rates = {"lr": 5e-3, "encoder_lr": 5e-3}
    return replace(finetuning, unlabelled=["x"], confidence=0.001, queries=0, batch=8, steps=12, eval_every=4, **rates)


def groups(run):
    """The lines of metrics.jsonl by group, without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        group: [{n: x.get(n) for n in ("step", "loss", "sure", "right", "ned")} for x in lines if x["group"] == group]
        for group in ("train", "held_out", "unlabelled")
    }


def test_stopped_and_continued_is_the_undisturbed_run(options, material, say):
    """With a student and its guide. It begins when validation words are read right; what is broken is counted."""
    more = pictures(NUMBERS[:20], damaged=[3, 4])
    material = replace(material, train=[[SIGNS]], val=[SIGNS], unlabelled=[more])
    options = replace(options, student="nrtr")
    whole = replace(options, out=options.out.with_name("whole"))
    done = finetune(whole, material, say)
    found = groups(whole.out)
    begun = found["unlabelled"][0]["step"]
    assert 4 < begun < 12
    assert any(line["sure"] > 0 for line in found["unlabelled"])
    assert done.dropped == {"unlabelled: it is not a picture": 2}
    assert "2 unlabelled pictures not used: it is not a picture" in say.lines
    with stopped_at(begun - 1, 12):  # between the evaluation before it and the one after
        finetune(options, material, print)
    assert load_checkpoint(options.out, LAST)["training"]["progress"]["unlabelled"] > 0
    finetune(replace(options, workers=1), material, print)
    assert groups(options.out) == found
    for name in (LAST, "best.pt"):
        one, same = (load_checkpoint(run.out, name)["model"] for run in (whole, options))
        assert all(torch.equal(one[name], same[name]) for name in {*one, *same})
    without = replace(options, unlabelled=[], ema=0.999, out=options.out.with_name("without"))
    finetune(without, replace(material, unlabelled=[]), print)
    same = groups(without.out)
    assert (same["held_out"][0], same["unlabelled"]) == (found["held_out"][0], [])
    assert same["train"][-1] != found["train"][-1]


def test_a_reader_that_reads_nothing_does_not_begin(options, material, say):
    more = replace(material, unlabelled=[pictures(NUMBERS[:4], damaged=range(4))])
    finetune(replace(options, steps=2), more, say)
    assert say.lines[-1].startswith("no unlabelled picture was used: it never read 50% of the validation")
    signs, options = replace(more, train=[[SIGNS]], val=[SIGNS]), replace(options, lr=3e-3, encoder_lr=3e-3)
    with pytest.raises(WrongUse, match="none of the 4 unlabelled pictures can be read as one: it is not a picture"):
        finetune(replace(options, out=options.out.with_name("other")), signs, say)


@pytest.fixture(scope="module")
def reader():
    """A recogniser without dropout, the moving average of its weights, which differs, and its pseudo-labels."""
    shape = configure("nrtr", memory_width=24, width=32, depth=1, heads=4, dropout=0.0, max_length=4, characters="ab")
    model = scattered(Recogniser(RecogniserConfig(vision(24, queries=5, query_layers=1), shape, 0)), 0.1)
    average = Average(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    loop = SimpleNamespace(
        step=SimpleNamespace(average=average), pace=SimpleNamespace(device=CPU), progress=Progress(), ranks=Ranks()
    )
    options = SimpleNamespace(confidence=0.0, blank=False)
    return PseudoLabels(options, [pictures(["a"])], model, loop, None, 0, print), model, average


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_is_the_mean_over_all_that_is_predicted(reader, precision):
    """A literal reference: a copy with the average's weights reads, and each word's loss is weighed by its length."""
    pseudo, model, average = reader
    plain, shown, own = noise(model, 12, 1), noise(model, 12, 2), noise(model, 3, 3)
    labels = ["ab", "b", "aaa"]
    teacher = deepcopy(model).eval()
    for parameter, weight in zip(teacher.parameters(), average.weights, strict=True):
        parameter.data.copy_(weight)
    with autocast(CPU, precision):
        read = list(zip(*teacher.read(plain), strict=True))
        pseudo._options.confidence = sum(sorted(sure for _, sure in read)[3:5]) / 2
        sure = pseudo._options.confidence
        kept = [n for n, (text, share) in enumerate(read) if share >= sure and 0 < len(text) < 5]
        assert len(kept) > 1
        assert any(len(text) == 5 for text, _ in read)
        words = [(own[n], label) for n, label in enumerate(labels)] + [(shown[n], read[n][0]) for n in kept]
        losses = [model.loss(picture[None], model.charset.encode([text])) for picture, text in words]
        lengths = torch.tensor([len(text) + 1 for _, text in words])
        expected = (torch.stack(losses) * lengths).sum() / lengths.sum()
    wanted = torch.autograd.grad(expected, list(model.parameters()))

    def labelled(batch):
        targets = model.charset.encode(batch.labels)
        return model.loss(batch.pictures, targets), model.decoder.predictions(targets)

    batch = CropBatch(own, [0, 1, 2], labels)
    batch.unlabelled = CropBatch(torch.cat([plain, shown], 1), list(range(12)), [""] * 12)
    with autocast(CPU, precision), FlopCounterMode(display=False):  # as in one step of fifty
        loss, count = pseudo.with_loss(labelled)(batch)
    near = 1e-5 if precision == "fp32" else 0.02
    assert loss.item() == pytest.approx(expected.item(), rel=near)
    assert count == lengths.sum()
    assert model.training
    for a, b in zip(torch.autograd.grad(loss, list(model.parameters())), wanted, strict=True):
        assert torch.allclose(a, b, rtol=near, atol=near)


def test_views_are_the_picture_and_the_same_augmented():
    crops = without_labels([pictures(["41", "7"]), pictures(["9", "12"], damaged=[0])])
    views = TwoViews(crops, (16, 64), 1.0, 3)[5, [3, 2, 1]]
    assert (views.numbers, views.labels, views.broken) == ([3, 1], ["", ""], {2: "it is not a picture"})
    plain = Pictures(crops, (16, 64))[5, [3, 1]].pictures
    assert torch.equal(views.pictures[:, :3], plain)
    assert not torch.equal(views.pictures[:, 3:], plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": True}, "leave out --freeze and --augment 0"),
        ({"augment": 0.0}, "leave out --freeze and --augment 0"),
        ({"unlabelled": ["drawn:en"]}, "add it as a --train"),
        ({"confidence": 1.0}, "--confidence and --ema must be at least 0 and below 1"),
        ({"ema": -0.1}, "--confidence and --ema must be at least 0 and below 1"),
    ],
)
def test_wrong_use_is_one_sentence(options, changes, message):
    with pytest.raises(WrongUse, match=message):
        check(replace(options, **changes))
