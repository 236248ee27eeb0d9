"""What fine-tuning starts from: weights of the pre-trained run and the tower, or a recogniser that goes on."""

import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cache.errors import WrongUse
from models.charset import Charset
from models.recogniser import unexplained
from sources.labelled import Labelled
from tests.helpers.pictures import NUMBERS, drawn, drawn_set
from train.data.crop_batches import Pictures
from train.data.crops import usable
from train.export import export
from train.finetune import Material, finetune
from train.reading.batched import load_in_order
from train.reading.evaluate import evaluate_crops
from train.reading.read import read
from train.reading.reading_page import read_for_page
from train.run import load_checkpoint, load_recogniser, load_run
from train.start import build, teacher

CPU = torch.device("cpu")


@pytest.fixture
def options(finetuning):
    return finetuning


def test_weights_come_from_the_pretrained_run_and_the_tower(options, material, init):
    recogniser, config = build(options, material.space, material.tower)
    decoder, _, _ = load_run(init)
    for name, tensor in recogniser.decoder.state_dict().items():
        assert torch.equal(tensor, decoder.state_dict()[name]), name
    for name, tensor in recogniser.encoder.state_dict().items():
        assert torch.equal(tensor, material.tower.state_dict()[name]), name
    assert config.options.corpus == ["numbers"]
    scratch, _ = build(replace(options, scratch=True), material.space, material.tower)
    assert not torch.equal(scratch.decoder.head.weight, decoder.head.weight)


def test_a_tower_can_be_thinned(options, material):
    thin, _ = build(replace(options, encoder_layers=1), material.space, material.tower)
    assert torch.equal(thin.encoder.stem[0].weight, material.tower.stem[0].weight)
    assert (len(thin.encoder.blocks), len(material.tower.blocks)) == (1, 2)
    with pytest.raises(WrongUse, match="--encoder-layers 2 leaves out none: the tower has 2 layers"):
        build(replace(options, encoder_layers=2), material.space, material.tower)


def test_tall_pictures_are_turned_wherever_the_reader_reads(options, material, tmp_path):
    """A word on its side, which nothing else would turn: in training's batches, evaluation, reading, and model.json."""
    with Image.open(io.BytesIO(drawn("12345678"))) as lying:
        standing = io.BytesIO()
        lying.rotate(-90, expand=True).save(standing, "PNG")
    both = [
        Labelled(name, ["1"], lambda _, data=data: data)
        for name, data in (("lying", drawn("12345678")), ("standing", standing.getvalue()))
    ]
    turned = replace(options, turn_tall=True, steps=1)
    finetune(turned, material, print)
    found = evaluate_crops(turned.out, both, device="cpu")
    assert found.sets[0].readings[0].confidence == pytest.approx(found.sets[1].readings[0].confidence, abs=1e-6)
    for name, data in (("lying", drawn("12345678")), ("standing", standing.getvalue())):
        (tmp_path / f"{name}.png").write_bytes(data)
    one, other = read(turned.out, [str(tmp_path / "lying.png"), str(tmp_path / "standing.png")], "cpu")
    assert (one.text, one.confidence) == (other.text, pytest.approx(other.confidence, abs=1e-6))
    export(turned.out, tmp_path / "out", "safetensors", print)
    assert "a quarter to the left" in json.loads((tmp_path / "out" / "model.json").read_text())["picture"]["turned"]
    plain, _ = build(replace(options, init=turned.out), None, None)
    assert plain.config.vision.turn_tall  # it goes on as it is
    made = Pictures(usable(both, Charset(), 25), (16, 64), turn_tall=True)[0, [0, 1]]
    assert torch.equal(*made.pictures)
    (batch,) = load_in_order(usable(both, Charset(), 25), plain.config.vision, 0)  # as int8 is measured, too
    assert torch.equal(*batch.pictures)
    recogniser = plain.eval()
    pages = [read_for_page(recogniser, (tmp_path / f"{name}.png").read_bytes()) for name in ("lying", "standing")]
    assert pages[0]["picture"] == pages[1]["picture"]  # shown as it was read, since attention lies on it
    assert pages[0]["confidence"] == pytest.approx(pages[1]["confidence"], abs=1e-6)


def test_learning_rates_are_apart(options, material):
    frozen, _ = build(replace(options, freeze=True), material.space, material.tower)
    assert not any(p.requires_grad for p in frozen.encoder.parameters())
    assert options.encoder_rate == pytest.approx(options.rate / 19)
    assert replace(options, encoder="vit").encoder_rate == options.rate


def test_permutations_are_those_of_pretraining_unless_given(options, material):
    assert build(options, material.space, material.tower)[0].decoder.config.permutations == 6
    assert build(replace(options, permutations=2), material.space, material.tower)[0].decoder.config.permutations == 2


def test_a_recogniser_goes_on_with_other_pictures(options, material, tmp_path):
    """In its own shape, with all its weights, and without a space; its run says what went before."""
    first = replace(options, queries=5, out=tmp_path / "first")
    finetune(first, material, print)
    alone = Material([[drawn_set(NUMBERS[:40], "more")]], material.val)
    more = replace(options, init=first.out, out=tmp_path / "more", augment=0.0, steps=20, eval_every=2, lr=1e-3)
    lines = []
    start, _ = build(more, None, None)
    assert start.training
    assert all(torch.equal(t, load_checkpoint(first.out)["model"][name]) for name, t in start.state_dict().items())
    assert all(p.requires_grad for p in start.parameters())
    done = finetune(more, alone, lines.append)
    before, after = (load_recogniser(run.out)[0] for run in (first, more))
    assert before.config == after.config
    assert any(
        not torch.equal(a, b) for a, b in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)
    )
    assert any(f"all of it from {first.out}" in line for line in lines)
    assert not any("far too few" in line for line in lines)
    lines = map(json.loads, (more.out / "metrics.jsonl").read_text().splitlines())
    assert done.loss < next(line["loss"] for line in lines if line["group"] == "train") - 0.5
    assert json.loads((more.out / "config.json").read_text())["resolved"]["pretrained"]["fine_tuned"] == [3]
    third = replace(options, init=more.out, out=tmp_path / "third", steps=1)
    finetune(third, alone, print)
    assert json.loads((third.out / "config.json").read_text())["resolved"]["pretrained"]["fine_tuned"] == [3, 20]


def test_a_thinned_recogniser_learns_the_memories_of_the_whole(options, material, tmp_path, say):
    first = replace(options, steps=1, out=tmp_path / "first")
    finetune(first, material, print)
    thin = replace(
        options,
        init=first.out,
        encoder_layers=1,
        steps=30,
        lr=1e-3,
        encoder_lr=1e-3,
        augment=0.0,
        out=tmp_path / "thin",
    )
    whole, start = teacher(thin, CPU), build(thin, None, None)[0].eval()
    for name, tensor in load_recogniser(first.out)[0].state_dict().items():
        assert torch.equal(whole.state_dict()[name], tensor), name
        if not name.startswith("encoder.blocks.1."):
            assert torch.equal(start.state_dict()[name], tensor), name
    assert not any(p.requires_grad for p in whole.parameters())
    assert all(p.requires_grad for p in start.parameters())
    finetune(thin, material, say)
    assert any("its tower thinned to 1 layer and taught by the whole" in line for line in say.lines)
    end = load_recogniser(thin.out)[0].eval()
    assert end.config.vision.layers == 1
    (batch,) = load_in_order(usable(material.val, whole.charset, 25), whole.config.vision, 0)
    with torch.no_grad():
        before, after = (
            unexplained(one.memory(batch.pictures), whole.memory(batch.pictures)).item() for one in (start, end)
        )
    assert after < 0.7 * before
    assert teacher(replace(thin, init=options.init), CPU) is None
    assert teacher(replace(thin, encoder_layers=None), CPU) is None


def test_another_charset_keeps_what_is_known(options, material, init, tmp_path, say):
    """Of a pre-trained run and of the fine-tuned one after it, which learns to write its new character."""
    (tmp_path / "é.txt").write_text("9876543210é", "utf-8")
    first = replace(options, charset=str(tmp_path / "é.txt"), space_char=True, out=tmp_path / "first")
    started, _ = build(first, material.space, material.tower)
    assert started.charset.characters == "9876543210é "
    known, (decoder, _, _) = started.decoder, load_run(init)
    assert torch.equal(known.head.weight[1], decoder.head.weight[10])
    assert torch.equal(known.embedding.weight[-2:], decoder.embedding.weight[-2:])
    assert torch.equal(known.positions, decoder.positions)
    finetune(first, material, say)
    assert "charset: 10 of 12 characters known, 2 new; 84 of the run are left out" in say.lines
    (tmp_path / "ж.txt").write_text("1ж", "utf-8")
    more = replace(options, init=first.out, charset=str(tmp_path / "ж.txt"), out=tmp_path / "more", augment=0.0)
    started, _ = build(more, None, None)
    before = load_recogniser(first.out)[0]
    assert torch.equal(started.decoder.head.weight[1], before.decoder.head.weight[9])
    assert all(torch.equal(a, b) for a, b in zip(started.fmu.parameters(), before.fmu.parameters(), strict=True))
    signs = Labelled("signs", ["ж1"] * 16, lambda _: drawn("41"))
    again, alone = replace(more, steps=12, lr=2e-3), Material([[signs]], [signs])
    assert finetune(again, alone, say).scores["word_accuracy"] == 1
    assert load_recogniser(more.out)[0].charset.characters == "1ж"
    with pytest.raises(WrongUse, match="already holds a finished run"):
        finetune(again, alone, say)


def test_a_charset_that_makes_no_sense_is_refused(options, material, tmp_path):
    (tmp_path / "ж.txt").write_text("жи", "utf-8")
    (tmp_path / "space.txt").write_text("1 ", "utf-8")
    with pytest.raises(WrongUse, match="none of the 2 characters of --charset is among the 94"):
        build(replace(options, charset=str(tmp_path / "ж.txt")), material.space, material.tower)
    scratch, _ = build(replace(options, charset=str(tmp_path / "ж.txt"), scratch=True), material.space, material.tower)
    assert scratch.charset.characters == "жи"
    with pytest.raises(WrongUse, match="has the space already"):
        build(replace(options, charset=str(tmp_path / "space.txt"), space_char=True), material.space, material.tower)
    spaced = replace(options, space_char=True, steps=1)
    finetune(spaced, material, print)
    with pytest.raises(WrongUse, match="writes the space already: leave out --space-char"):
        build(replace(options, init=spaced.out, space_char=True), None, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "vit"}, "--encoder vit"),
        ({"freeze": True, "permutations": 2}, "--freeze and --permutations"),
        ({"image_size": "16x64"}, "--image-size"),
        ({"no_fmu": True, "scratch": True}, "--no-fmu and --scratch"),
    ],
)
def test_a_recogniser_keeps_its_shape(options, material, changes, said, tmp_path):
    first = replace(options, steps=1, out=tmp_path / "first")
    finetune(first, material, print)
    with pytest.raises(WrongUse, match=f"is a fine-tuned run, which goes on as it is: leave out {said}\\."):
        build(replace(options, init=first.out, **changes), None, None)
