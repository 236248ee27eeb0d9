"""A student reads in one pass, and the pre-trained decoder that guided it stays behind."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from cache.errors import WrongUse
from models.recogniser import GUIDE
from train.export import export
from train.finetune import finetune
from train.reading.evaluate import evaluate_crops
from train.run import LAST, load_checkpoint, load_recogniser, load_run
from train.start import build


@pytest.fixture
def options(finetuning):
    return replace(finetuning, student="ctc")


def test_the_guide_learns_from_the_same_tokens(options, material, init):
    """Its loss is added and reaches the encoder; it has the run's weights and the student has new ones."""
    recogniser, _ = build(options, material.space, material.tower)
    recogniser.eval()
    assert (recogniser.decoder.config.kind, recogniser.guide.config.kind) == ("ctc", "parseq")
    assert recogniser.config.decoder == recogniser.decoder.config
    for name, tensor in load_run(init)[0].state_dict().items():
        assert torch.equal(tensor, recogniser.guide.state_dict()[name]), name
    pictures = torch.randint(0, 256, (2, 3, 16, 64), dtype=torch.uint8)
    targets = recogniser.charset.encode(["10", "7"])
    memory = recogniser.memory(pictures)
    torch.manual_seed(0)  # of the orders that the guide predicts in
    own, guides = recogniser.decoder.loss(memory, None, targets), recogniser.guide.loss(memory, None, targets)
    torch.manual_seed(0)
    assert recogniser.loss(pictures, targets).item() == pytest.approx((own + guides).item(), rel=1e-6)
    (reached,) = torch.autograd.grad(guides, [recogniser.encoder.positions])
    assert reached.abs().sum() > 0


def test_the_guide_is_only_in_checkpoints_to_continue_from(options, material, init, tmp_path, say):
    finetune(options, material, say)
    assert any(f"a new ctc decoder, guided in training by that of {init}" in line for line in say.lines)
    last, best = (load_checkpoint(options.out, name)["model"] for name in (LAST, "best.pt"))
    guide = {name.removeprefix(GUIDE): tensor for name, tensor in last.items() if name.startswith(GUIDE)}
    assert {name for name in last if not name.startswith(GUIDE)} == set(best)
    first = load_run(init)[0].state_dict()
    assert guide.keys() == first.keys()
    assert not torch.equal(guide["head.weight"], first["head.weight"])  # it goes on learning
    recogniser, _, _ = load_recogniser(options.out)
    assert (recogniser.decoder.config.kind, recogniser.guide) == ("ctc", None)
    export(options.out, tmp_path / "out", "safetensors", print)
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(best)
    export(options.out, tmp_path / "onnx", "onnx", print)  # which reads pictures with both and compares
    for run in (options.out, tmp_path / "out"):
        assert evaluate_crops(run, material.val, device="cpu").scores.words == 13
    again, _ = build(replace(options, init=options.out, student=None), None, None)
    assert (again.decoder.config.kind, again.guide) == ("ctc", None)
    other, _ = build(replace(options, init=options.out, student="nrtr"), None, None)
    assert (other.decoder.config.kind, other.guide.config.kind) == ("nrtr", "ctc")


def test_a_student_of_no_kind_is_refused(options, material):
    with pytest.raises(WrongUse, match="there is no decoder 'x': choose one of"):
        build(replace(options, student="x"), material.space, material.tower)
