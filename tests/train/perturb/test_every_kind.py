"""What holds for every kind: shapes, dtypes, seeds, no waiting for the device; runs that train, evaluate and read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import train.recorder
from cache.errors import DptrError
from cache.space import open_space
from pipeline.convert import space_tower
from tests.helpers.perturb import material
from train.perturb import KINDS, perturbation
from train.perturb.grammar import read
from train.perturb.moments import Collapse
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate
from train.run import PERTURBATION, kept_perturbation, run_config, zero_label_recogniser
from train.run_config import RunConfig, options_of

EVERY = [
    "orp(0.1)", "orp(10%, positions=sample)", "gaussian(50%)", "scaled(0.1)", "shift(0.5)", "collapse(10%)", "moments",
    "covariance", "matched(10%)", "learned(steps=3)", "mix(k=4)", "stretch(0.3)", "drop(20%)", "swap(20%)", "trail(12)",
    "nearest(0.1)", "far(10%, k=3)", "spread(0.1)",
    "stretch(0.3) + moments + gaussian(10%)",
]  # fmt: skip
D = 16


def prepared(text, folder):
    found = perturbation(text, "bank")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 9, D, generator=generator)
    rows = torch.randn(300, D, generator=generator)
    found.prepare(material(folder, rows, features, table=lambda side: np.tile(np.arange(20, dtype=np.int32), (9, 1))))
    return found


def batch():
    return torch.randn(8, 7, D, generator=torch.Generator().manual_seed(1)), torch.arange(7) < torch.arange(8)[:, None]


def test_no_kind_is_forgotten():
    assert {call.name for text in EVERY for call in read(text)} == {kind.name for kind in KINDS}


@pytest.mark.parametrize("text", EVERY)
def test_a_batch_stays_one(text, tmp_path):
    found = prepared(text, tmp_path)
    memory, mask = batch()
    before = memory.clone()
    for given in (mask | (torch.arange(7) == 0), None):
        moved, there = found(memory, given, torch.Generator().manual_seed(2), torch.arange(8))
        again, _ = found(memory, given, torch.Generator().manual_seed(2), torch.arange(8))
        assert torch.equal(moved, again)
        assert moved.dtype == memory.dtype
        assert moved.isfinite().all()
        assert moved.shape[0] == 8
        assert moved.shape[2] == D
        if there is not None:
            assert there.shape == moved.shape[:2]
            assert there.dtype == torch.bool
            assert there[:, 0].all()
    assert torch.equal(memory, before)  # nothing is changed in place
    assert "\n" not in found.describe()
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


@pytest.mark.parametrize("text", EVERY)
def test_it_never_waits_for_the_device(text, tmp_path):
    """A GPU may replay it: a shape that depends on values, or a value that Python reads, fails on fake tensors."""
    found = prepared(text, tmp_path)
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved, _ = found(torch.randn(8, 7, D), torch.ones(8, 7, dtype=torch.bool), numbers=torch.arange(8))
    assert moved.shape[::2] == (8, D)


@pytest.mark.parametrize("text", EVERY)
def test_nothing_is_random_in_evaluation(text, tmp_path):
    found = prepared(text, tmp_path)
    memory, mask = batch()
    torch.manual_seed(0)
    one, there = found.evaluated(memory, mask)
    torch.manual_seed(1)
    two, _ = found.evaluated(memory, mask)
    assert torch.equal(one[there], two[there])
    assert torch.equal(found.inference(memory), found.inference(memory))


@pytest.fixture(scope="module")
def options(cache, tmp_path_factory):
    return PretrainOptions(
        ["numbers"], tmp_path_factory.mktemp("runs"), cache=cache, bank="noise", depth=1, heads=2, batch=32, steps=2,
        device="cpu", precision="fp32", eval_words=50,
    )  # fmt: skip


@pytest.mark.parametrize("text", EVERY)
def test_a_run_trains_and_reads(options, text):
    one = replace(options, perturb=text, out=options.out / str(EVERY.index(text)))
    lines = []
    summary = pretrain(one, lines.append)
    assert any(line.startswith(f"perturbation {perturbation(text, 'noise')}: ") for line in lines)
    mixed = sum("two bases are mixed" in line for line in lines)
    assert mixed == any(part.needs_bank for part in perturbation(text, "noise").parts)  # this space has compact rows
    assert set(run_config(one.out).resolved["perturb"]) == {call.name for call in read(text)}
    assert evaluate(one.out, limit=20, device="cpu").sets[0].score.words == 20
    assert summary.steps == 2


def test_image_tokens_are_read_as_the_kind_says(options):
    one = replace(options, perturb="gaussian(10%) + collapse(10%)", out=options.out / "collapse")
    pretrain(one, print)
    space = open_space(options.cache)
    tower = space_tower(space, None)
    recogniser, config, _ = zero_label_recogniser(one.out, tower)
    mean = torch.from_numpy(space.bank("noise").features()).flatten(0, 1).float().mean(0)
    tokens = torch.randn(3, 17, len(mean))
    assert torch.allclose(recogniser.memory(tokens), tokens - mean, atol=1e-3)
    found = kept_perturbation(one.out, config)
    assert isinstance(found.parts[1], Collapse)
    words = torch.randn(2, 4, len(mean))
    assert torch.allclose(found.evaluated(words, None)[0], words - found.parts[1].text)
    (one.out / PERTURBATION).unlink()
    with pytest.raises(DptrError, match=f"{PERTURBATION} is missing"):
        zero_label_recogniser(one.out, tower)


def test_held_out_words_are_read_without_their_mean(options, monkeypatch):
    """As training and `evaluate` see them; the decoder would otherwise be chosen by rows it never learnt to read."""
    monkeypatch.setattr(train.recorder, "draw_curves", lambda *_: None)  # which take as long as the steps
    one = replace(options, perturb="collapse(10%)", out=options.out / "held-out", steps=60, lr=2e-3, eval_words=1000)
    pretrain(one, print)
    (found,) = evaluate(one.out, device="cpu").sets
    lines = (one.out / "held-out.tsv").read_text().splitlines()[1:]
    assert sorted(line.split("\t")[1:] for line in lines) == sorted([r.truth, r.text] for r in found.readings)
    assert found.score.word_accuracy > 0.02
    (one.out / PERTURBATION).unlink()
    with pytest.raises(DptrError, match="is missing"):
        evaluate(one.out, device="cpu")


EARLIER = [
    ({"orp": None, "orp_relative": None, "noise": None, "orp_positions": "shared"}, None),
    ({"orp": 0.2, "orp_relative": None, "noise": None, "orp_positions": "shared"}, "orp(0.2)"),
    ({"orp": None, "orp_relative": 0.07, "noise": None, "orp_positions": "shared"}, "orp(7%)"),
    ({"orp": None, "orp_relative": None, "noise": None, "orp_positions": "sample"}, "orp(0.1, positions=sample)"),
    ({"orp": None, "orp_relative": None, "noise": 0.5, "orp_positions": "shared"}, "gaussian(50%)"),
]


@pytest.mark.parametrize(("given", "text"), EARLIER)
def test_configurations_of_before_say_the_same(options, given, text):
    """As they were while four options said how to perturb; the run goes on with the same command."""
    bank = None if given["noise"] else "noise"
    one = replace(options, perturb=text, bank=bank, out=options.out / f"earlier-{EARLIER.index((given, text))}")
    pretrain(one, print)
    now = json.loads((one.out / "config.json").read_text())
    figures = now["resolved"].pop("perturb")
    now["options"].pop("perturb")
    before = {**now, "options": {**now["options"], **given}}
    if given["noise"]:
        norm = figures["gaussian"]["memory_norm"]
        before["resolved"]["orp"] = {"noise": 0.5, "memory_norm": norm}
    else:
        before["resolved"]["orp"] = figures["orp"]
    found = RunConfig.of(before)
    assert (found.options.perturb, options_of(before).get("perturb")) == (text, text)
    assert found.differences(run_config(one.out)) == []
