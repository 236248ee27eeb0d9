"""Export to safetensors: the weights that the run has, and a description that is true of them."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cache.errors import DptrError, WrongUse
from models.decoders import DecoderConfig, configure, make
from models.image_encoder import Convolution, VisionConfig
from models.recogniser import Recogniser, RecogniserConfig
from tests.helpers.runs import FINGERPRINT, run_config
from train.export import export
from train.recorder import Recorder

SCORES = {"accuracy_36": 0.75, "word_accuracy": 0.5}


def vision(out=32, **changes):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    fields = {"class_token": True, "pre_norm": True, "mean": mean, "std": std, **changes}
    return VisionConfig((8, 32), (Convolution(24, (4, 8), (4, 8)),), 1, 3, 48, out, **fields)


def decoder_config(kind="parseq", **changes):
    shape = {"memory_width": 32, "width": 32, "depth": 2, "heads": 4, "max_length": 6, **changes}
    return configure(kind, **shape)


def scattered(model, end):
    """With scattered weights, so that errors show, and words end early and late."""
    torch.manual_seed(0)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            torch.nn.init.normal_(parameter, float(isinstance(module, torch.nn.LayerNorm)), 0.2)
    with torch.no_grad():
        decoder = getattr(model, "decoder", model)
        getattr(decoder, "queries" if decoder.config.kind == "ctc" else "positions").mul_(5)
        decoder.head.bias[0] += end
    return model.eval()


def saved(folder, model, config):
    run = Recorder(folder, config)
    run.save_best(model, 1200, SCORES, [])
    run.close()
    return folder


def finetuned(folder, encoder=None, queries=0, end=2.0, **changes):
    """A fine-tuned run and its recogniser; the higher `end`, the shorter its readings."""
    model = scattered(Recogniser(RecogniserConfig(encoder or vision(), decoder_config(**changes), queries)), end)
    return saved(folder, model, run_config(model.config)), model


def pretrained(folder, **changes):
    """A pre-trained run and its decoder."""
    model = scattered(make(decoder_config(**changes)), 2.0)
    return saved(folder, model, run_config(model.config, space_name="tiny")), model


def pictures(model, B, seed=1):
    """Noise of different colours and contrasts, (B, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(B, 3, *model.config.vision.image_size, generator=generator)
    low, high = (torch.rand(2, B, 3, 1, 1, generator=generator) * 255).sort(0).values
    return (low + noise * (high - low)).byte()


@pytest.mark.parametrize("queries", [0, 5])
def test_recogniser_is_rebuilt_from_what_was_written(tmp_path, say, queries):
    run, model = finetuned(tmp_path / "run", vision(20), queries)
    done = export(run, tmp_path / "out", "safetensors", say)
    assert done["files"] == ["model.json", "model.safetensors"] == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert (done["kind"], done["step"], done["scores"]) == ("recogniser", 1200, SCORES)
    assert not list(tmp_path.glob("*.tmp"))
    made = json.loads((tmp_path / "out" / "model.json").read_text())
    shape = {name: made["shape"][name] for name in ("vision", "decoder", "queries")}
    other = Recogniser(RecogniserConfig.of(shape)).eval()
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    other.load_state_dict(weights)
    some = pictures(model, 3)
    assert other.read(some) == model.read(some)
    assert made["shape"]["fmu_heads"] == (4 if queries else 0)


def test_description_says_how_to_feed_and_to_understand_the_model(tmp_path, say):
    run, model = finetuned(tmp_path / "run", characters="aé0")
    export(run, tmp_path / "out", "safetensors", say)
    made = json.loads((tmp_path / "out" / "model.json").read_text("utf-8"))
    assert made["characters"] == "aé0"
    assert made["ids"] == {"EOS": 0, "characters": [1, 3], "BOS": 4, "PAD": 5, "embedding": 6, "head": 4}
    assert made["run"] == {"name": "run", "step": 1200, "scores": SCORES}
    assert made["space"]["digest"] == FINGERPRINT.digest
    assert (made["reading"]["positions"], made["reading"]["refinements"]) == (7, 1)
    picture = made["picture"]
    assert picture["size"] == {"height": 8, "width": 32}
    some = pictures(model, 1)
    mean, std = (torch.tensor(picture[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert torch.allclose((some / 255 - mean) / std, model.encoder.normalised(some))


def test_pretrained_run_is_its_decoder(tmp_path, say):
    run, model = pretrained(tmp_path / "run", memory_width=20)
    (tmp_path / "out").mkdir()  # an empty folder may be there
    done = export(run, tmp_path / "out", "safetensors", say)
    assert done["kind"] == "pre-trained decoder"
    made = json.loads((tmp_path / "out" / "model.json").read_text())
    other = make(DecoderConfig.of(made["shape"]["decoder"])).eval()
    other.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    memory = torch.randn(3, 5, 20)
    assert torch.equal(other.read(memory, None)[0], model.read(memory, None)[0])
    assert made["picture"] is None


def test_wrong_use_is_said_and_leaves_nothing(tmp_path, say, monkeypatch):
    run, _ = pretrained(tmp_path / "run")
    with pytest.raises(WrongUse, match="'pt' is not an export format: choose one of safetensors, openocr, onnx."):
        export(run, tmp_path / "out", "pt", say)
    with pytest.raises(WrongUse, match="there is no run in"):
        export(tmp_path, tmp_path / "out", "safetensors", say)
    with pytest.raises(WrongUse, match="already exists"):
        export(run, run, "safetensors", say)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", refuse)
        with pytest.raises(DptrError, match="cannot write"):
            export(run, tmp_path / "out", "safetensors", say)
    (run / "best.pt").write_bytes(b"PK")
    with pytest.raises(DptrError, match="damaged"):
        export(run, tmp_path / "out", "safetensors", say)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
