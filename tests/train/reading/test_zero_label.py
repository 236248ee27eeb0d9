"""A decoder that has only read memories reads pictures: through its space's image tower, with nothing in between."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cache.errors import WrongUse
from cache.space import open_space
from pipeline.convert import space_tower
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.labelled import Labelled
from tests.helpers.commands import run
from tests.helpers.pictures import drawn
from train.data.word_batches import MemoryLoader
from train.data.words import read_words
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate_crops
from train.reading.read import read
from train.run import load_run, zero_label_recogniser

NUMBERS = [str(n) for n in range(20, 44)]


def trained(folder, encoder, steps=20):
    embed_text(folder / "cache", encoder, collect(map(str, range(300))), "numbers", print)
    options = PretrainOptions(
        ["numbers"], folder / "run", cache=folder / "cache", depth=1, heads=2, batch=32, steps=steps, device="cpu",
        precision="fp32",
    )  # fmt: skip
    pretrain(options, print)
    return folder / "run"


@pytest.fixture(scope="module")
def encoder():
    """Its rows are 64 wide, and 32 once they are projected."""
    return Encoder("tiny-wide", "untrained:1", precision="fp32", layout="shared")


@pytest.fixture(scope="module")
def work(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero")
    trained(folder, encoder)
    (folder / "crops").mkdir()
    lines = []
    for n in NUMBERS:
        (folder / "crops" / f"{n}.png").write_bytes(drawn(n))
        lines.append(f"{n}.png\t{n}\n")
    (folder / "crops" / "labels.tsv").write_text("".join(lines))
    return folder


def test_shared_memories_are_rows_where_image_tokens_are(work, encoder):
    """As open_clip projects them, end token first, and as wide as the image tower's tokens."""
    space = open_space(work / "cache")
    decoder = load_run(work / "run")[0]
    words, _ = read_words(space, ["numbers"], decoder.charset, 25)
    some = words.take([3, 250])
    memory, mask = MemoryLoader(space, torch.device("cpu")).load(some)
    for n, label in enumerate(some.labels):
        ids = encoder.prompt.ids(label)
        tokens = torch.tensor([[*ids, *[0] * (77 - len(ids))]])
        model = encoder.model
        with torch.no_grad():
            x = model.token_embedding(tokens) + model.positional_embedding
            rows = (model.ln_final(model.transformer(x, attn_mask=model.attn_mask)) @ model.text_projection)[0]
            pooled = model.encode_text(tokens)[0]
        P = len(encoder.prompt.prefix)
        wanted = torch.cat([pooled[None], rows[P : len(ids)]])
        assert int(mask[n].sum()) == len(wanted) == len(ids) - P + 1
        assert (memory[n, : len(wanted)] - wanted).abs().max() < 2e-3
    assert memory.shape[-1] == encoder.image_shape()[1] == 32


def test_pictures_are_read_from_the_towers_tokens(work, encoder):
    decoder = load_run(work / "run")[0]
    tower = space_tower(open_space(work / "cache"), None)
    found = read(work / "run", [str(work / "crops")], "cpu", None, tower)
    assert len(found) == len(NUMBERS)
    height, width = tower.config.image_size
    pictures = [Image.open(one.image).convert("RGB").resize((width, height), Image.Resampling.BICUBIC) for one in found]
    pixels = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures])
    tokens = torch.from_numpy(encoder.image_tokens(pixels)).float()
    with torch.inference_mode():
        ids, _ = decoder.read(tokens, None)
    assert [one.text for one in found] == decoder.charset.decode(ids)


def test_evaluation_scores_what_is_read(work):
    tower = space_tower(open_space(work / "cache"), None)
    texts = {
        one.image.rpartition("/")[2]: one.text for one in read(work / "run", [str(work / "crops")], "cpu", None, tower)
    }
    crops = Labelled("crops", NUMBERS, lambda n: (work / "crops" / f"{NUMBERS[n]}.png").read_bytes())
    done = evaluate_crops(work / "run", [crops], device="cpu", tower=tower)
    assert {r.truth: r.text for r in done.readings} == {n: texts[f"{n}.png"] for n in NUMBERS}


def test_from_the_command_line(work):
    asked = ["evaluate", "run", "--data", "crops", "--zero-label", "--device", "cpu", "--json"]
    done = run(*asked, cwd=work)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["words"] == len(NUMBERS)
    assert "<html" in (work / "run" / "errors.html").read_text()
    shown = run("read", "run", f"crops/{NUMBERS[0]}.png", "--zero-label", "--device", "cpu", cwd=work)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"crops/{NUMBERS[0]}.png\t")
    wrong = run("evaluate", "run", "--zero-label", cwd=work)
    assert wrong.returncode == 2
    assert "name some with --data" in wrong.stderr


def test_a_fine_tuned_run_is_the_ceiling(work):
    asked = ["finetune", "--init", "run", "--train", "crops", "--val", "crops", "--freeze", "--no-fmu", "--batch", 12]
    done = run(*asked, "--steps", 2, "--workers", 0, "--device", "cpu", "--out", "reader", cwd=work)
    assert done.returncode == 0, done.stderr
    options = ["evaluate", "run", "--data", "crops", "--zero-label", "--ceiling", "reader", "--device", "cpu"]
    found = json.loads(run(*options, "--json", cwd=work).stdout)
    alone = json.loads(run("evaluate", "reader", "--data", "crops", "--device", "cpu", "--json", cwd=work).stdout)
    assert found["ceiling"] == {"run": "reader", "scores": alone["scores"]}
    share = alone["scores"]["accuracy_36"]
    assert f"ceiling: reader, trained on labelled pictures, reads {share:.1%}" in run(*options, cwd=work).stdout
    wrong = run("evaluate", "reader", "--data", "crops", "--ceiling", "reader", cwd=work)
    assert wrong.returncode == 2
    assert "--ceiling is what --zero-label is compared with" in wrong.stderr


def test_tokens_of_another_width_are_wrong_use(tmp_path):
    """In the compact layout, rows are not projected."""
    path = trained(tmp_path, Encoder("tiny-wide", "untrained:1", precision="fp32", layout="compact"), 2)
    tower = space_tower(open_space(tmp_path / "cache"), None)
    with pytest.raises(WrongUse, match="32 values per token and the decoder of .* reads 64: .*--layout shared"):
        zero_label_recogniser(path, tower)
