"""Fine-tuning learns to read drawn words, in every shape, and starts from pre-trained weights."""

import json
from dataclasses import replace

import pytest
import torch

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from models.decoders import names
from models.decoders.parseq import Config, Decoder
from pipeline.embed_crops import embed_crops
from sources.labelled import Labelled
from tests.helpers.pictures import NUMBERS, drawn, drawn_set, picture
from train.data.crop_batches import CachedTokens
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.attention_page import look
from train.reading.errors_page import errors_page
from train.reading.evaluate import evaluate_crops
from train.reading.read import read
from train.reading.result import table
from train.run import load_recogniser
from train.start import build

VAL = [drawn_set(NUMBERS[:45:7], "val")]


@pytest.fixture
def options(finetuning):
    return finetuning


@pytest.fixture(scope="module")
def trained(init, material, tmp_path_factory):
    """A run long enough to read half of the two-digit numbers, drawn for it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    options = FinetuneOptions(
        init,
        ["x"],
        ["y"],
        out,
        queries=0,
        batch=15,
        steps=250,
        lr=1e-3,
        encoder_lr=1e-3,
        eval_every=125,
        augment=0.0,
        workers=0,
    )
    half = replace(material, train=[[drawn_set(NUMBERS[:45])]], val=VAL)
    return out, finetune(replace(options, device="cpu", precision="fp32"), half, print)


def test_drawn_numbers_are_read(trained):
    _, summary = trained
    assert summary.crops == 45
    assert summary.scores["accuracy_36"] > 0.8
    assert 0 <= summary.waiting < 1


def test_run_is_whole_and_evaluates(trained):
    out, summary = trained
    config = json.loads((out / "config.json").read_text())
    assert config["recogniser"]["vision"]["image_size"] == [16, 64]
    assert config["resolved"]["pretrained"]["corpora"] == ["numbers"]
    assert config["resolved"]["crops"] == {"drawn": 45}
    sets = [*VAL, drawn_set([*NUMBERS[:20], "", "x" * 30, "汉"], "more", damaged=[3])]
    done = evaluate_crops(out, sets, device="cpu")
    val, more = done.sets
    assert val.score.words == 7
    assert val.score.accuracy_36 == pytest.approx(summary.scores["accuracy_36"], abs=0.1)
    assert more.score.words == 19
    assert more.left_out == {
        "it is not a picture": 1,
        "without a label": 1,
        "longer than 25 characters": 1,
        "without any ASCII character": 1,
    }
    assert done.scores.words == 26
    assert done.plain_mean["accuracy_36"] == pytest.approx((val.score.accuracy_36 + more.score.accuracy_36) / 2)
    text = table(done, 3)
    assert "mean, weighted" in text
    assert "more: 1 left out: it is not a picture" in text
    assert "data:image/" in errors_page(done, sets) or done.scores.word_accuracy == 1
    assert evaluate_crops(out, sets, limit=5, device="cpu").scores.words == 10


@pytest.mark.parametrize("changes", [{"queries": 0}, {"queries": 5}, {"scratch": True}, {"permutations": 1}])
def test_shapes_run(options, material, changes):
    done = finetune(replace(options, **changes), material, print)
    assert done.steps == 3
    recogniser, _, _ = load_recogniser(options.out)
    assert recogniser.config.queries == changes.get("queries", 26)


@pytest.mark.parametrize("kind", names())
def test_every_decoder_runs_evaluates_and_reads(options, material, cache, kind, tmp_path):
    first = PretrainOptions(
        ["numbers"], tmp_path / "first", cache=cache, decoder=kind, depth=1, heads=2, batch=32, steps=2
    )
    pretrain(replace(first, device="cpu"), print)
    one = replace(options, init=tmp_path / "first")
    assert finetune(one, material, print).steps == 3
    assert load_recogniser(one.out)[0].decoder.config.kind == kind
    assert evaluate_crops(one.out, material.val, device="cpu").scores.words == 13
    (tmp_path / "10.png").write_bytes(drawn("10"))
    (reading,) = read(one.out, [str(tmp_path / "10.png")], "cpu")
    assert 0 <= reading.confidence <= 1
    if kind != "parseq":
        with pytest.raises(WrongUse, match=f"needs a parseq decoder, and this run has {kind}"):
            look(one.out, [str(tmp_path / "10.png")], tmp_path / "looked.png", "cpu")
        with pytest.raises(WrongUse, match=f"the decoder {kind} has no permutations"):
            build(replace(one, permutations=2), material.space, material.tower)


def test_vit_from_scratch_runs(options, material):
    alone = Material(material.train, material.val)
    done = finetune(replace(options, encoder="vit", image_size="16x32", steps=1), alone, print)
    assert done.steps == 1
    assert load_recogniser(options.out)[0].config.vision.grid == (4, 4)


def test_sets_of_one_name_keep_their_own_pictures(trained):
    """As two collections may each have a set of that name; the page must not mix up their pictures."""
    import base64
    import re

    first, second = Labelled("set", ["zz"], lambda _: drawn("11")), Labelled("set", ["zz"], lambda _: drawn("77"))
    sets = [first, second]
    page = errors_page(evaluate_crops(trained[0], sets, device="cpu"), sets)
    shown = {base64.b64decode(data) for data in re.findall(r"data:image/\w+;base64,([^\"']+)", page)}
    assert len(shown) == 2


def test_frozen_encoder_is_not_in_the_loop(options, material, cache, monkeypatch, tmp_path):
    """Its tokens come from the cache, and reading from them gives the same as reading from pictures."""
    import shutil

    from models.image_encoder import ImageEncoder

    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    space = open_space(copy)
    sets = [*material.train[0], *material.val, drawn_set(["10"], "broken", damaged=[0])]
    pictures = [(f"{one.name}/{n}", one.picture(n)) for one in sets for n in range(len(one))]
    bank = embed_crops(space, material.tower, torch.device("cpu"), pictures, len(pictures), print)
    assert (bank.rows, len(bank.skipped())) == (90, 1)  # the watched ones are among the others
    again = embed_crops(space, material.tower, torch.device("cpu"), pictures, len(pictures), print)
    assert len(again.entries) == len(bank.entries)
    tokens = CachedTokens(bank)
    (batch,) = tokens.batches(_crops(sets[0]), [[3, 1]])
    expected = material.tower(material.tower.normalised(torch.stack([_pixels("13"), _pixels("11")])))
    assert batch.labels == ["13", "11"]
    assert torch.allclose(batch.pictures.float(), expected, atol=0.01)
    before = {name: tensor.clone() for name, tensor in material.tower.state_dict().items()}
    frozen = Material([[sets[0], sets[2]]], material.val, space, material.tower, tokens)
    with monkeypatch.context() as patch:
        patch.setattr(ImageEncoder, "forward", lambda *_: pytest.fail("the encoder ran"))
        done = finetune(replace(options, freeze=True, batch=91), frozen, print)
    assert done.dropped == {"broken: it could not be embedded": 1}
    recogniser, _, _ = load_recogniser(options.out)
    for name, tensor in recogniser.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert evaluate_crops(options.out, material.val, device="cpu").scores.words == 13


def _crops(one):
    from models.charset import Charset
    from train.data.crops import usable

    return usable([one], Charset(), 25)


def _pixels(text):
    from models.image_encoder import stretched
    from sources.pictures import decode

    return stretched(decode(drawn(text)), (16, 64))


def test_unequal_widths_are_bridged():
    from models.image_encoder import Convolution, VisionConfig
    from models.recogniser import Recogniser, RecogniserConfig

    vision = VisionConfig((16, 32), (Convolution(16, (8, 8), (8, 8)),), 1, 2, 32, 20)
    recogniser = Recogniser(RecogniserConfig(vision, Config(24, 16, 1, 2), 6)).eval()
    assert recogniser.memory(torch.zeros(2, 3, 16, 32, dtype=torch.uint8)).shape == (2, 6, 24)
    assert isinstance(recogniser.decoder, Decoder)
    texts, confidences = recogniser.read(torch.randint(0, 256, (2, 3, 16, 32), dtype=torch.uint8))
    assert len(texts) == 2
    assert all(0 <= c <= 1 for c in confidences)


def test_damaged_picture_of_a_set_is_listed_by_evaluation(trained):
    with pytest.raises(DptrError, match="no picture of bad could be read"):
        evaluate_crops(trained[0], [Labelled("bad", ["a"], lambda _: picture(0)[:40])], device="cpu")
