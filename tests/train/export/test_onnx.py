"""Export to ONNX: onnxruntime reads with the written file what the run reads.

A conversion takes seconds however small the model, so only two are made, and the other tests use what they wrote.
"""

import json
import shutil
import sys

import onnxruntime
import pytest
import torch

from cache.errors import DptrError, WrongUse
from tests.train.export.test_export import finetuned, pictures, pretrained, vision
from train.export import export
from train.export import onnx as export_onnx


@pytest.fixture(
    scope="module",
    params=[
        # a tower with queries of its own, adapted to the width of the decoder's memory, then merged
        ({"out": 20, "quick_gelu": True, "queries": 6, "query_layers": 1}, 5, 2, 3.25),
        ({"out": 32, "class_token": False, "pre_norm": False}, 0, 1, 5.0),  # the decoder looks at the tokens themselves
    ],
    ids=["adapt-fmu", "tokens"],
)
def written(request, tmp_path_factory):
    """A run's recogniser, the folder it was written to, and what was printed about it."""
    changes, queries, depth, end = request.param
    folder = tmp_path_factory.mktemp("onnx")
    run, model = finetuned(folder / "run", vision(**changes), queries, end, depth=depth)
    lines = []
    return model, folder / "out", export(run, folder / "out", "onnx", lines.append), lines


def test_reads_as_the_run_does(written):
    model, out, _, _ = written
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    held = session.get_modelmeta().custom_metadata_map
    lengths = set()
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


def test_says_what_it_is_and_not_where_it_was_made(written):
    model, out, done, lines = written
    assert done["files"] == ["model.json", "model.onnx"]
    assert done["pictures_compared"] > 0
    assert done["largest_difference"] < 1e-4
    assert "probabilities differ by" in lines[-1]
    made = json.loads((out / "model.json").read_text())
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    held = session.get_modelmeta().custom_metadata_map
    assert held["characters"] == model.charset.characters == made["characters"]
    assert json.loads(held["model"]) == made
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [("pictures", [3, 8, 32])]
    ends = (*session.get_inputs(), *session.get_outputs())
    assert [one.shape[0] for one in ends] == ["B", "B", "B"]  # any number of pictures
    assert "EXIF" in made["picture"]["decoding"]
    assert "transparency" in made["picture"]["decoding"]
    assert "16-bit" in made["picture"]["decoding"]
    content = (out / "model.onnx").read_bytes()
    assert b".py" not in content
    assert b"fx_node" not in content


def test_a_file_that_reads_otherwise_is_not_kept(written, tmp_path, say, monkeypatch):
    model, out, _, _ = written
    run, _ = finetuned(tmp_path / "run", model.config.vision, end=-9.0)  # reads longer words than what was written
    monkeypatch.setattr(export_onnx, "_convert", lambda reader, path, fields: shutil.copy(out / "model.onnx", path))
    with pytest.raises(
        DptrError, match="model.onnx was not kept: onnxruntime .* does not read random pictures as the run does"
    ):
        export(run, tmp_path / "out", "onnx", say)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_torch_cannot_convert_is_said_in_one_sentence(tmp_path, say, monkeypatch):
    run, _ = finetuned(tmp_path / "run")

    def fail(*_, **__):
        raise RuntimeError("no such operator\nand forty lines more")

    monkeypatch.setattr("torch.export.export", fail)
    with pytest.raises(
        DptrError, match=r"to ONNX \(no such operator\): install the versions listed in constraints.txt"
    ):
        export(run, tmp_path / "out", "onnx", say)
    assert not (tmp_path / "out").exists()


def test_wrong_use_is_said(tmp_path, say, monkeypatch):
    run, _ = pretrained(tmp_path / "pretrained")
    with pytest.raises(WrongUse, match="pre-trained run, which cannot read pictures: fine-tune it"):
        export(run, tmp_path / "out", "onnx", say)
    run, _ = finetuned(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(WrongUse, match=r"needs onnxscript: pip install 'dptr\[onnx\]'"):
        export(run, tmp_path / "out", "onnx", say)
    assert not (tmp_path / "out").exists()
