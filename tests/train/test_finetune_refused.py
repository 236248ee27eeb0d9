"""Fine-tuning says in one sentence what it cannot use: crops, labels, checkpoints, options."""

from dataclasses import replace

import pytest
import torch

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from pipeline.convert import space_tower
from sources.labelled import Labelled
from tests.helpers.pictures import NUMBERS, drawn, drawn_set
from train.finetune import Material, finetune
from train.finetune_options import check
from train.run import load_run, pretrained_config


@pytest.fixture
def options(finetuning):
    return finetuning


def test_vit_for_pictures_without_a_token_is_refused(options, material):
    with pytest.raises(WrongUse, match="2 x 2 are smaller than one patch.*--image-size"):
        finetune(replace(options, encoder="vit", image_size="2x2"), Material(material.train, material.val), print)


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
