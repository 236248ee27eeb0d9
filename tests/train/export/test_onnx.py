"""Export to ONNX: onnxruntime reads with the written file what the run reads, whichever its decoder."""

import json
import shutil
import sys
from functools import cache

import onnxruntime
import pytest
import torch

from cache.errors import DptrError, WrongUse
from models.decoders import StepDecoder, ctc, names
from models.image_encoder import stretched
from sources.pictures import decode
from tests.helpers.pictures import drawn, drawn_set
from tests.train.export.test_export import finetuned, pictures, pretrained, vision
from train.export import export
from train.export import onnx as export_onnx
from train.export.onnx.compare import Session

ADAPTED = vision(out=20, quick_gelu=True, queries=6, query_layers=1)  # with queries of its own, then adapted and merged
TOKENS = vision(class_token=False, pre_norm=False)  # at which the decoder looks itself


ENDS = {
    "abinet": 4.0,
    "ctc": 1.0,
    "mdiff": 2.7,
    "nrtr": 3.5,
    "parseq": 3.25,
}  # for words of several lengths


@pytest.fixture(
    scope="module",
    params=[*((kind, ADAPTED, 5, 2, ENDS[kind]) for kind in names()), ("parseq", TOKENS, 0, 1, 5.0)],
    ids=[*names(), "tokens"],
)
def written(request, tmp_path_factory):
    """A run's recogniser, the folder it was written to with int8, and what was printed about it."""
    kind, tower, queries, depth, end = request.param
    folder, lines = tmp_path_factory.mktemp("onnx"), []
    run, model = finetuned(folder / "run", tower, queries, end, depth=depth, kind=kind)
    return model, folder / "out", export(run, folder / "out", "onnx", lines.append, int8=True), lines


@cache  # it takes longer than reading
def opened(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_reads_as_the_run_does(written, capfd):
    model, out, _, _ = written
    session = opened(out / "model.onnx")
    held, lengths = session.get_modelmeta().custom_metadata_map, set()
    for B in (1, 2, 9, 40):
        some = pictures(model, B, seed=B)
        ids, shares = session.run(["ids", "probabilities"], {"pictures": some.numpy()})
        expected_ids, expected = model.decoder.read(model.memory(some), None)
        assert (ids.shape, ids.dtype, shares.dtype) == ((B, 7), "int64", "float32")
        assert torch.equal(torch.from_numpy(ids), expected_ids)
        assert torch.allclose(torch.from_numpy(shares), expected, atol=1e-5)
        texts = ["".join(held["characters"][i - 1] for i in row if i) for row in ids]  # behind the text all is EOS
        assert texts == model.read(some)[0]
        lengths |= {len(text) for text in texts}
    assert len(lengths) > 2  # words that end early and late
    assert capfd.readouterr().err == ""  # onnxruntime warns there of shapes that are not as declared


def test_says_what_it_is_and_not_where_it_was_made(written):
    model, out, done, lines = written
    assert done["files"] == ["model.int8.onnx", "model.json", "model.onnx"]
    assert done["pictures_compared"] > 0
    assert done["largest_difference"] < 1e-4
    assert "probabilities differ by" in lines[0]
    made = json.loads((out / "model.json").read_text())
    session = opened(out / "model.onnx")
    held = session.get_modelmeta().custom_metadata_map
    assert held["characters"] == model.charset.characters == made["characters"]
    assert json.loads(held["model"]) == made
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [("pictures", [3, 8, 32])]
    ends = (*session.get_inputs(), *session.get_outputs())
    assert [one.shape[0] for one in ends] == ["B", "B", "B"]  # any number of pictures
    assert "EXIF" in made["picture"]["decoding"]
    assert "transparency" in made["picture"]["decoding"]
    assert "16-bit" in made["picture"]["decoding"]
    assert b".py" not in (out / "model.onnx").read_bytes()


def test_every_weight_is_there_once(written):
    model, out, _, _ = written
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert (out / "model.onnx").stat().st_size < weights + 150_000  # nodes, names and the description


def test_int8_is_smaller_and_reads_most_alike(written):
    model, out, done, lines = written
    assert (out / "model.int8.onnx").stat().st_size < (out / "model.onnx").stat().st_size
    assert b"MatMulInteger" in (out / "model.int8.onnx").read_bytes()
    assert done["int8"]["random_pictures"] == 64
    assert f"{done['int8']['equal']} of 64 pictures of noise are read alike. Give --data" in lines[-1]
    some = pictures(model, 40)
    ids, _ = opened(out / "model.onnx").run(None, {"pictures": some.numpy()})
    whole, small = torch.from_numpy(ids), Session(out / "model.int8.onnx").read(some)[0]
    assert float((whole == small).float().mean()) > 0.7  # of characters; these weights are wilder than trained ones


def test_int8_is_measured_on_words(tmp_path, say):
    run, model = finetuned(tmp_path / "run", kind="ctc")
    words = ["street", "1984", "EXIT", "a", "tomorrow"]
    right = model.read(torch.stack([stretched(decode(drawn(word)), (8, 32)) for word in words[:2]]))[0]
    done = export(run, tmp_path / "out", "onnx", say, int8=True, sets=[drawn_set(words)])["int8"]
    assert (done["sets"], done["words"]) == (["drawn"], 4)  # tomorrow is too long
    assert done["fp32"] == sum(text == word for text, word in zip(right, words, strict=False)) / 4
    assert 0 <= done["equal"] <= 4


def test_a_file_that_reads_otherwise_is_not_kept(written, tmp_path, say, monkeypatch):
    model, out, _, _ = written
    kind = model.decoder.config.kind
    run, _ = finetuned(tmp_path / "run", model.config.vision, end=-9.0, kind=kind)  # longer words than what was written
    monkeypatch.setattr(export_onnx, "convert", lambda recogniser, path, fields: shutil.copy(out / "model.onnx", path))
    with pytest.raises(
        DptrError, match="model.onnx was not kept: onnxruntime .* does not read random pictures as the run does"
    ):
        export(run, tmp_path / "out", "onnx", say)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_torch_cannot_convert_is_said_in_one_sentence(tmp_path, say, monkeypatch):
    run, _ = finetuned(tmp_path / "run")

    def fail(*_, **__):
        raise RuntimeError("no such operator\nand forty lines more")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(
        DptrError, match=r"to ONNX \(no such operator\): install the versions listed in constraints.txt"
    ):
        export(run, tmp_path / "out", "onnx", say)
    assert not (tmp_path / "out").exists()


def test_a_decoder_without_a_form_in_onnx_says_so(tmp_path, say, monkeypatch):
    run, _ = finetuned(tmp_path / "run", kind="ctc")
    read = ctc.Decoder.read

    def branching(self, memory, memory_mask):
        ids, shares = read(self, memory, memory_mask)
        return (ids, shares) if bool((ids > 0).any()) else (ids * 0, shares)

    monkeypatch.setattr(ctc.Decoder, "read", branching)
    assert not issubclass(ctc.Decoder, StepDecoder)
    with pytest.raises(WrongUse, match="the decoder ctc decides while it reads what to compute, and has no form in"):
        export(run, tmp_path / "out", "onnx", say)
    assert not (tmp_path / "out").exists()


def test_wrong_use_is_said(tmp_path, say, monkeypatch):
    run, _ = pretrained(tmp_path / "pretrained")
    with pytest.raises(WrongUse, match="pre-trained run, which cannot read pictures: fine-tune it"):
        export(run, tmp_path / "out", "onnx", say)
    run, _ = finetuned(tmp_path / "run")
    with pytest.raises(WrongUse, match="--int8 is for ONNX, and for safetensors without --half"):
        export(run, tmp_path / "out", "safetensors", say, half=True, int8=True)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WrongUse, match=r"needs onnx: pip install 'dptr\[onnx\]'"):
        export(run, tmp_path / "out", "onnx", say)
    assert not (tmp_path / "out").exists()
