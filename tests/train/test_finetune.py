"""Fine-tuning learns to read drawn words, starts from pre-trained weights, and says in one sentence what is wrong."""

import json
from dataclasses import replace

import pytest
import torch

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from models.decoders import names
from models.decoders.parseq import Config, Decoder
from pipeline.convert import space_tower
from pipeline.embed_crops import embed_crops
from sources.labelled import Labelled
from tests.helpers.pictures import NUMBERS, drawn, drawn_set, picture
from train.data.crop_batches import CachedTokens
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions, check
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.attention_page import look
from train.reading.errors_page import errors_page
from train.reading.evaluate import evaluate_crops
from train.reading.read import read
from train.reading.result import table
from train.run import load_recogniser, load_run, pretrained_config
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


def test_vit_for_pictures_without_a_token_is_refused(options, material):
    with pytest.raises(WrongUse, match="2 x 2 are smaller than one patch.*--image-size"):
        finetune(replace(options, encoder="vit", image_size="2x2"), Material(material.train, material.val), print)


def test_sets_of_one_name_keep_their_own_pictures(trained):
    """As two collections may each have a set of that name; the page must not mix up their pictures."""
    import base64
    import re

    first, second = Labelled("set", ["zz"], lambda _: drawn("11")), Labelled("set", ["zz"], lambda _: drawn("77"))
    sets = [first, second]
    page = errors_page(evaluate_crops(trained[0], sets, device="cpu"), sets)
    shown = {base64.b64decode(data) for data in re.findall(r"data:image/\w+;base64,([^\"']+)", page)}
    assert len(shown) == 2


def test_broken_crops_are_counted_and_the_rest_is_learnt_from(options, material, say):
    damaged = Material([[drawn_set(NUMBERS, damaged=[0, 5])]], material.val, material.space, material.tower)
    done = finetune(replace(options, batch=90, steps=2), damaged, say)
    assert done.dropped == {"broken: it is not a picture": 2}
    assert any("2 training crops not used: it is not a picture" in line for line in say.lines)
    nothing = Material([[drawn_set(NUMBERS[:3], damaged=range(3))]], material.val, material.space, material.tower)
    with pytest.raises(DptrError, match="none of the 3 training crops of drawn can be read as a picture: check"):
        finetune(replace(options, out=options.out.with_name("other")), nothing, say)


def test_labels_that_an_ascii_charset_changes_are_counted(options, material, say):
    accented = Labelled("accented", [*NUMBERS, "1é", "2é", "汉3"], lambda n: drawn("10"))
    finetune(replace(options, steps=1), replace(material, train=[[accented]]), say)
    assert any("3 training labels lose or change characters that are not ASCII" in line for line in say.lines)
    assert not any("validation labels" in line for line in say.lines)


def test_validation_without_a_picture_is_said_before_the_run(options, material):
    unreadable = replace(material, val=[drawn_set(["10", "11"], "none", damaged=[0, 1])])
    with pytest.raises(DptrError, match="none of the 2 validation crops of none can be read as a picture"):
        finetune(options, unreadable, print)
    assert not options.out.exists()


def test_plan_says_what_to_expect(options, material, say):
    """And the end, that nothing was read right."""
    finetune(options, material, say)
    assert any("90 training crops in 1 set, 13 validation" in line for line in say.lines)
    assert any("this shows 48 words; the first are read right after some 100,000" in line for line in say.lines)
    assert any("far too few, raise --epochs or --steps" in line for line in say.lines)
    assert say.lines[-1].startswith("no held-out word was read right after 48 words: show it 100,000 or more")


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


def test_decoder_of_another_space_is_refused(options, material, tiny_models, tmp_path):
    from pipeline.embed_text import embed_text
    from pipeline.encoder import Encoder
    from pipeline.labels import collect

    encoder = Encoder("tiny", "untrained:2", precision="fp32")
    embed_text(tmp_path / "other", encoder, collect(NUMBERS), "numbers", print)
    space = open_space(tmp_path / "other")
    other = Material(material.train, material.val, space, space_tower(space, (16, 64)))
    with pytest.raises(WrongUse, match="features of different encoders cannot be mixed.*weights"):
        finetune(options, other, print)
    assert finetune(replace(options, other_space=True), other, print).steps == 3  # a control


def test_checkpoint_that_does_not_fit_is_an_error(options, material, init, tmp_path):
    import shutil

    shutil.copytree(init, tmp_path / "init")
    saved = torch.load(init / "best.pt", weights_only=True)
    del saved["model"]["head.bias"]
    torch.save(saved, tmp_path / "init" / "best.pt")
    with pytest.raises(DptrError, match="best.pt is damaged or from another version.*head.bias"):
        finetune(replace(options, init=tmp_path / "init"), material, print)
    assert not options.out.exists()
    finetune(options, material, print)
    with pytest.raises(WrongUse, match="is a fine-tuned run"):
        pretrained_config(options.out)
    with pytest.raises(WrongUse, match="already holds a finished run"):
        finetune(options, material, print)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "x"}, "--encoder must be clip or vit"),
        ({"encoder": "vit", "freeze": True}, "would keep the random weights"),
        ({"freeze": True, "encoder_layers": 1}, "thins a tower that is then trained"),
        ({"freeze": True, "encoder_lr": 0.1}, "--encoder-lr has no effect"),
        ({"weight": [1.0, 2.0]}, "1 --train but 2 --weight"),
        ({"weight": [0.0]}, "at least one of them more than 0"),
        ({"batch": 0}, "--batch must be more than 0"),
        ({"lr": -1.0}, "--lr must be more than 0"),
        ({"permutations": 3}, "give 1 or an even number, not 3"),
        ({"augment": -1.0}, "must be 0 or more"),
    ],
)
def test_wrong_use_is_one_sentence(options, changes, message):
    with pytest.raises(WrongUse, match=message):
        check(replace(options, **changes))


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


class Program:
    def __reduce__(self):
        import os

        return os.system, ("false",)


@pytest.mark.parametrize("inside", [Program(), torch.nn.Linear(1, 1), print, b"no checkpoint"])
def test_checkpoint_that_hides_a_program_is_not_loaded(init, tmp_path, inside):
    """torch's message would go on to say how to run it."""
    import shutil

    shutil.copytree(init, tmp_path / "init")
    path = tmp_path / "init" / "best.pt"
    path.write_bytes(inside) if isinstance(inside, bytes) else torch.save({"model": inside}, path)
    with pytest.raises(DptrError) as error:
        load_run(tmp_path / "init")
    refused = "is damaged" if isinstance(inside, bytes) else "is not loaded, because it asks for"
    assert f"{path} {refused}" in str(error.value)
    assert "weights_only" not in str(error.value)
