"""The drawing of a space: its numbers are those of the rows, and every perturbation has a drawing of its own."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cache.space import open_space
from pipeline.convert import space_tower
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from tests.helpers.commands import run
from tests.helpers.pictures import drawn
from train.perturb.plot import gap, plane

NUMBERS = [str(n) for n in range(20, 32)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot")
    encoder = Encoder("tiny-wide", "untrained:1", precision="fp32", layout="shared")
    embed_text(folder / "cache", encoder, collect(NUMBERS), "numbers", print)
    (folder / "crops").mkdir()
    for n in NUMBERS:
        (folder / "crops" / f"{n}.png").write_bytes(drawn(n))
    (folder / "crops" / "labels.tsv").write_text("".join(f"{n}.png\t{n}\n" for n in NUMBERS))
    return folder


def test_every_perturbation_is_drawn_with_its_gaps(work):
    asked = ["cache", "plot", "--corpus", "numbers", "--cache", "cache", "--data", "crops", "--out", "plots", "--json"]
    done = run(*asked, "--perturb", "none", "--perturb", "gaussian(50%)", cwd=work)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["1-none.png", "2-gaussian-50.png"]
    for name in found:
        with Image.open(work / "plots" / name) as page:
            assert len(page.convert("RGB").getcolors(1 << 24)) > 50

    space = open_space(work / "cache")
    tower = space_tower(space, None)
    height, width = tower.config.image_size
    pictures = [
        Image.open(work / "crops" / f"{n}.png").convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        for n in NUMBERS
    ]
    pixels = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures])
    with torch.no_grad():
        images = tower(tower.normalised(pixels)).flatten(0, 1).numpy()
    encoder = Encoder("tiny-wide", "untrained:1", precision="fp32", layout="shared")
    words = []
    for n in NUMBERS:
        rows = encoder.text_states([encoder.prompt.ids(n)]).astype(np.float32)
        words += [rows[-1], *rows]  # as memories are: the word, then its parts
    a, b = np.mean(words, 0), images.mean(0)
    norms = [np.linalg.norm(rows, axis=1).mean() for rows in (np.array(words), images)]
    one = found["1-none.png"]["word images' tokens, as cached"]
    assert one["cosine"] == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=2e-3)
    assert one["distance"] == pytest.approx(float(np.linalg.norm(a - b) / np.mean(norms)), rel=5e-3)
    assert found["1-none.png"]["word images' tokens, none"] == one
    assert found["2-gaussian-50.png"]["word images' tokens, gaussian(50%)"] != one


def test_gap_is_of_the_means():
    rows, others = torch.tensor([[3.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 6.0]])
    found = gap(rows, others)
    assert (found.norm, found.cosine) == (3.0, 0.0)
    assert found.distance == pytest.approx((9 + 25) ** 0.5 / 4)


def test_plane_is_where_rows_vary_most():
    rows = torch.zeros(100, 5)
    rows[:, 3] = torch.linspace(-9, 9, 100)
    rows[:, 1] = torch.linspace(-2, 2, 100)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    directions, mean = plane(rows + 7)
    assert torch.allclose(mean, torch.full((5,), 7.0), atol=1e-4)
    assert directions[:, 0].abs().argmax() == 3
    assert directions[:, 1].abs().argmax() == 1


def test_a_misspelt_kind_is_wrong_use(work):
    asked = ["cache", "plot", "--corpus", "numbers", "--cache", "cache", "--out", "plots", "--perturb", "gausian(1)"]
    done = run(*asked, cwd=work)
    assert done.returncode == 2
    assert "did you mean gaussian?" in done.stderr


def test_sides_of_two_widths_are_wrong_use(work):
    """In the compact layout, rows are not projected."""
    encoder = Encoder("tiny-wide", "untrained:1", precision="fp32", layout="compact")
    embed_text(work / "compact", encoder, collect(NUMBERS), "numbers", print)
    done = run("cache", "plot", "--corpus", "numbers", "--cache", "compact", "--data", "crops", "--out", "no", cwd=work)
    assert done.returncode == 2
    assert "32 values per token and memories have 64" in done.stderr
    assert "--layout shared" in done.stderr
