"""Pictures with an empty label teach a run to read nothing there, if it is asked to use them."""

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageOps

from models.decoders import names
from sources.labelled import Labelled
from tests.helpers.decoders import small
from tests.helpers.pictures import drawn, drawn_set
from train.finetune import finetune
from train.reading.attention_page import look
from train.reading.errors_page import errors_page
from train.reading.evaluate import evaluate_crops
from train.reading.read import read
from train.reading.result import table


def on_black(text):
    file = io.BytesIO()
    with Image.open(io.BytesIO(drawn(text))) as picture:
        ImageOps.invert(picture).save(file, "PNG")
    return file.getvalue()


SEVENS = Labelled("sevens", ["7"] * 20, lambda n: on_black("7"))  # so unlike a blank one that few steps tell them apart
BLANK = Labelled("blank", [""] * 20, lambda n: drawn("", (24 + n, 64)))


def test_blank_pictures_are_read_as_no_text(finetuning, material, tmp_path, say):
    both = replace(material, train=[[SEVENS, BLANK]], val=[SEVENS, BLANK])
    options = replace(finetuning, queries=0, batch=40, steps=40, lr=3e-3, encoder_lr=3e-3, augment=0.0, eval_every=20)
    done = finetune(replace(options, blank=True), both, say)
    assert (done.crops, done.val, done.dropped) == (40, 40, {})
    found = evaluate_crops(options.out, [SEVENS, BLANK], device="cpu")
    assert [(one.score.words, one.score.word_accuracy, one.score.ned) for one in found.sets] == [(20, 1.0, 1.0)] * 2
    assert found.by_length["0"].words == 20
    assert "\n0 " in table(found, 3)
    errors_page(found, [SEVENS, BLANK])
    (tmp_path / "blank.png").write_bytes(drawn(""))
    (one,) = read(options.out, [str(tmp_path / "blank.png")], "cpu")
    assert (one.text, one.characters, one.problem) == ("", [], None)
    assert 0.5 < one.confidence <= 1
    assert look(options.out, [str(tmp_path / "blank.png")], tmp_path / "looked.png", "cpu") == 1


def test_without_being_asked_they_are_left_out(finetuning, material, say):
    done = finetune(finetuning, replace(material, train=[[*material.train[0], BLANK]]), say)
    assert done.dropped == {"without a label": 20}
    assert "20 training crops not used: without a label" in say.lines
    assert evaluate_crops(finetuning.out, [drawn_set(["10", ""])], device="cpu").sets[0].score.words == 1


@pytest.mark.parametrize("kind", names())
def test_every_decoder_learns_from_a_batch_of_nothing(kind):
    decoder = small(kind, max_length=6).train()
    for labels in (["", ""], ["", "a"]):
        decoder.zero_grad()
        decoder.loss(torch.randn(2, 5, 24), None, decoder.charset.encode(labels)).backward()
        assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)
