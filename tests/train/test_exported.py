"""An exported folder does what the run did, and the readers of train/shipped are found by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import DptrError, WrongUse
from tests.helpers.runs import run_config
from tests.train.export.test_export import finetuned, pictures, pretrained, saved, vision
from train import shipped
from train.export import export
from train.finetune_options import FinetuneOptions
from train.run import PERTURBATION, kept_perturbation, load_recogniser, load_run
from train.shipped import find_run, shipped_reader
from train.start import build, history


@pytest.mark.parametrize("kind", ["parseq", "ctc"])
@pytest.mark.parametrize("how", ["fp32", "fp16", "int8"])
def test_a_reader_reads_what_its_run_reads(tmp_path, say, kind, how):
    run, model = finetuned(tmp_path / "run", vision(20), queries=0 if kind == "ctc" else 5, kind=kind)
    options = {"half": how == "fp16", "int8": how == "int8"}
    done = export(run, tmp_path / "out", "safetensors", say, **options)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    kinds = {"fp32": {torch.float32}, "fp16": {torch.float16}, "int8": {torch.int8, torch.float32}}
    assert {tensor.dtype for tensor in stored.values()} == kinds[how]
    recogniser, config, step = load_recogniser(tmp_path / "out")
    assert {tensor.dtype for tensor in recogniser.state_dict().values()} == {torch.float32}
    some = pictures(model, 20)
    found, expected = recogniser.read(some), model.read(some)
    said = f"recogniser of step 1,200: {done['parameters'] / 1e6:.1f} M parameters in "
    if how != "fp32":
        for name, weights in recogniser.state_dict().items():
            rows, true = (one.flatten(1) if one.dim() > 1 else one[None] for one in (weights, model.state_dict()[name]))
            most = true.abs().amax(1, keepdim=True) * (1 / 2047 if how == "fp16" else 1 / 253)
            assert (rows - true).abs().le(most + 1e-7).all(), name
        assert sum(a == b for a, b in zip(found[0], expected[0], strict=True)) >= (15 if how == "fp16" else 5)
        assert done["alike"] <= done["compared"] == 64
        assert say.lines == [f"{said}{how}; of 64 random pictures, {done['alike']} are read as with fp32"]
    else:
        assert found == expected
        assert say.lines == [f"{said}fp32"]
    assert (step, config.model, config.fingerprint) == (1200, model.config, run_config(model.config).fingerprint)
    again = export(tmp_path / "out", tmp_path / "again", "safetensors", say, **options)
    assert again["scores"] == done["scores"]
    more = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(more[name], tensor) for name, tensor in stored.items())


def test_how_many_read_alike_is_counted(tmp_path, say, monkeypatch):
    run, _ = finetuned(tmp_path / "run")
    names = iter(("a", "b"))
    monkeypatch.setattr(
        "models.recogniser.Recogniser.read_characters",
        lambda self, pictures: ([next(names), *["same"] * (len(pictures) - 1)], None),
    )
    assert export(run, tmp_path / "out", "safetensors", say, half=True)["alike"] == 63


def test_it_goes_on_as_the_run_would_and_names_no_path(tmp_path, say):
    _, model = finetuned(tmp_path / "first")
    config = run_config(model.config)
    options = replace(config.options, blank=True, train=["/secret/train"], val=["/secret/val"], charset="/secret/c")
    resolved = {"steps": 90, "crops": {"/secret": 1}, "pretrained": {"corpora": ["en"], "steps": 5}}
    run = saved(tmp_path / "run", model, replace(config, options=options, resolved=resolved))
    export(run, tmp_path / "out", "safetensors", say)
    assert "secret" not in (tmp_path / "out" / "model.json").read_text()
    assert load_recogniser(tmp_path / "out")[1].options.blank
    started, init = build(FinetuneOptions(tmp_path / "out", ["t"], ["v"], tmp_path / "x"), None, None)
    assert all(
        torch.equal(a, b) for a, b in zip(started.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert history(init) == {"corpora": ["en"], "steps": 5, "fine_tuned": [90]}


def test_a_decoder_keeps_its_perturbation(tmp_path, say):
    _, model = pretrained(tmp_path / "first", memory_width=20)
    config = run_config(model.config, space_name="tiny")
    options = replace(config.options, bank="photos", perturb="shift", zero_memory=True)
    run = saved(tmp_path / "run", model, replace(config, options=options))
    save_file({"0.move": torch.arange(20.0)}, run / PERTURBATION)
    done = export(run, tmp_path / "out", "safetensors", say, half=True)
    assert done["files"] == ["model.json", "model.safetensors", "perturbation.safetensors"]
    assert "random memories" in say.lines[0]
    decoder, found, step = load_run(tmp_path / "out")
    assert (found.pretraining.perturb, found.pretraining.zero_memory, step) == ("shift", True, 1200)
    assert found.pretraining.corpus == config.options.corpus
    assert decoder.config == model.config
    moved, _ = kept_perturbation(tmp_path / "out", found).evaluated(torch.zeros(1, 1, 20), None)
    assert moved.flatten().tolist() == list(range(20))
    with pytest.raises(WrongUse, match="is a pre-trained run"):
        load_recogniser(tmp_path / "out")


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_what_is_damaged_is_named(tmp_path, say, name):
    run, _ = finetuned(tmp_path / "run")
    export(run, tmp_path / "out", "safetensors", say)
    data = (tmp_path / "out" / name).read_bytes()
    for broken in (data[: len(data) // 2], b"", b"{}"):
        (tmp_path / "out" / name).write_bytes(broken)
        with pytest.raises(DptrError, match=r"out is damaged or from another version"):
            load_recogniser(tmp_path / "out")


def test_weights_beyond_fp16_are_not_rounded_to_infinity(tmp_path, say):
    _, model = finetuned(tmp_path / "first")
    with torch.no_grad():
        model.decoder.head.bias[1] = 70_000
    run = saved(tmp_path / "run", model, run_config(model.config))
    with pytest.raises(DptrError, match="beyond the range of fp16"):
        export(run, tmp_path / "out", "safetensors", say, half=True)
    with pytest.raises(WrongUse, match="--half stores the weights of --format safetensors"):
        export(run, tmp_path / "out", "openocr", say, half=True)
    assert not (tmp_path / "out").exists()


def test_shipped_readers_are_found_by_name(tmp_path, say, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipped").mkdir()
    with pytest.raises(WrongUse, match=r"no reader comes with this installation: name a run"):
        shipped_reader()
    with pytest.raises(WrongUse, match=r"there is no run in reader: make one with dptr pretrain --out reader\.$"):
        load_recogniser(Path("reader"))
    run, model = finetuned(tmp_path / "run")
    export(run, tmp_path / "shipped" / "reader", "safetensors", say, half=True)
    assert shipped_reader() == find_run(Path("reader")) == tmp_path / "shipped" / "reader"
    assert load_recogniser(Path("reader"))[0].config == model.config
    with pytest.raises(WrongUse, match=r"--out readers, or use reader, which comes with dptr\.$"):
        load_recogniser(Path("readers"))
    for other in ("shipped/../reader", "./none", "..", ""):
        assert find_run(Path(other)) is None
    (tmp_path / "reader").mkdir()  # what is there comes first, whatever it is
    assert find_run(Path("reader")) is None
    (tmp_path / "reader").rmdir()
    run.rename(tmp_path / "reader")
    assert find_run(Path("reader")) == Path("reader")
