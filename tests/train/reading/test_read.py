"""Reading picture files: how they are named and decoded, and that each is read as if it were alone."""

import io
import math
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cache.errors import DptrError, WrongUse
from models.charset import EOS
from models.decoders import configure, make
from models.decoders.parseq import Config
from models.image_encoder import Convolution, VisionConfig, stretched
from models.recogniser import Recogniser, RecogniserConfig
from tests.helpers.lmdbs import write_lmdb
from tests.helpers.pictures import picture
from tests.helpers.runs import run_config
from train.reading import read as stage
from train.reading.read import PictureReading, read
from train.reading.result import Reading
from train.recorder import Recorder


def tiny(queries=5, class_token=True, depth=2):
    """A recogniser that was never trained, but writes words of several lengths."""
    torch.manual_seed(3)
    stem = (Convolution(16, (8, 8), (8, 8)),)
    vision = VisionConfig((16, 64), stem, layers=1, heads=2, feed=32, out=24, class_token=class_token)
    decoder = Config(24, width=32, depth=depth, heads=4, max_length=8)
    recogniser = Recogniser(RecogniserConfig(vision, decoder, queries)).eval()
    with torch.no_grad():
        for name, parameter in recogniser.named_parameters():  # away from the start, so that pictures and errors show
            middle, spread = (float(name.endswith("weight")), 0.2) if "norm" in name else (0.0, 0.5)
            torch.nn.init.normal_(parameter, middle, spread)
        recogniser.decoder.head.bias[EOS] += 5  # so that some words end before the longest length
    return recogniser


def save(folder, recogniser):
    """A run as `dptr finetune` leaves it."""
    run = Recorder(folder, run_config(recogniser.config))
    run.save_best(recogniser, 7, {"word_accuracy": 0.5}, [])
    run.close()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save(tmp_path_factory.mktemp("runs") / "run", tiny())


@pytest.fixture
def folder(tmp_path):
    """Pictures b.png, c.jpg, sub/a.png and z, and files that are not pictures."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.png").write_bytes(picture(1))
    (folder / "c.jpg").write_bytes(picture(2, (20, 70), "JPEG"))
    (folder / "sub" / "a.png").write_bytes(picture(3, (9, 90)))
    (folder / "z").write_bytes(picture(4))
    (folder / "labels.txt").write_text("not tried")
    return folder


def alone(recogniser, data):
    pixels = stretched(Image.open(io.BytesIO(data)).convert("RGB"), recogniser.config.vision.image_size)
    (text,), (confidence,) = recogniser.read(pixels[None])
    return text, confidence


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("queries", [0, 5])
def test_each_picture_is_read_as_if_alone(tmp_path, monkeypatch, queries, class_token):
    monkeypatch.setattr(stage, "BATCH", 4)
    monkeypatch.setattr(stage, "AHEAD", 3)
    recogniser = tiny(queries, class_token)
    pictures = [picture(n, (10 + n, 40)) for n in range(11)]
    for n, data in enumerate(pictures):
        (tmp_path / f"{n:02d}.png").write_bytes(data)
    came = []
    readings = read(save(tmp_path / "run", recogniser), [str(tmp_path / "*.png")], "cpu", came.append)
    assert came == readings
    assert [r.image for r in readings] == [str(tmp_path / f"{n:02d}.png") for n in range(11)]
    for reading, data in zip(readings, pictures, strict=True):
        text, confidence = alone(recogniser, data)
        assert reading.text == text
        assert reading.confidence == pytest.approx(confidence, rel=1e-3)
        assert reading.problem is None
    assert len({r.text for r in readings}) > 2
    assert len({len(r.text) for r in readings}) > 1


@pytest.mark.parametrize("kind", ["parseq", "ctc"])
def test_each_character_has_the_probability_that_the_decoder_gives_it(tmp_path, kind):
    recogniser = tiny()
    if kind == "ctc":
        torch.manual_seed(0)
        recogniser.decoder = make(configure("ctc", memory_width=24, width=32, depth=1, heads=4, max_length=8)).eval()
        torch.nn.init.normal_(recogniser.decoder.head.weight, std=0.5)
    run = tmp_path / "run"
    config = replace(recogniser.config, decoder=recogniser.decoder.config)
    recogniser.config = config
    save(run, recogniser)
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(picture(n, (10 + n, 40)))
    readings = read(run, [str(tmp_path / "*.png")], "cpu")
    for n, reading in enumerate(readings):
        pixels = stretched(Image.open(tmp_path / f"{n}.png").convert("RGB"), (16, 64))
        with torch.inference_mode():
            ids, shares = recogniser.decoder.read(recogniser.memory(pixels[None]), None)
        letters = [recogniser.charset.characters[i - 1] for i in ids[0].tolist() if i != EOS]
        assert list(reading.text) == letters
        assert reading.characters == pytest.approx(shares[0, : len(letters)].tolist(), rel=1e-3)
        end = float(shares[0, len(letters)]) if len(letters) < shares.shape[1] else 1.0
        assert reading.confidence == pytest.approx(math.prod(reading.characters) * end, rel=1e-3)
    assert any(reading.characters for reading in readings)


def test_broken_pictures_among_good_ones(run, folder, monkeypatch):
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes(picture(1)[:300])
    monkeypatch.setattr(stage, "BATCH", 1)
    named = [str(folder / name) for name in ("empty.png", "b.png", "labels.txt", "cut.png", "z")]
    readings = read(run, named)
    assert [r.image for r in readings] == named
    problems = [r.problem for r in readings]
    assert problems[0] == "it is empty"
    assert problems[2] == "it is not a picture"
    assert problems[3].startswith("it is damaged (")
    assert [readings[1].text, readings[4].text] == [alone(tiny(), picture(n))[0] for n in (1, 4)]
    assert readings[0] == PictureReading(named[0], None, None, problems[0])
    assert readings[0].characters is None
    assert [r.problem for r in read(run, named[:1])] == problems[:1]  # none is good


def paths(images):
    return [Path(path) for path, _ in stage.pictures([str(image) for image in images])]


def test_folders_and_patterns(folder, monkeypatch):
    everything = [folder / name for name in ("b.png", "c.jpg", "sub/a.png", "z")]
    assert paths([folder]) == everything
    assert paths([folder / "sub", folder / "b.png"]) == [everything[2], everything[0]]
    assert paths([folder / "*.[pj]*g"]) == everything[:2]
    assert paths([folder / "**" / "*.png"]) == [everything[0], everything[2]]
    assert paths([folder / "**"]) == [everything[0], everything[1], folder / "labels.txt", *everything[2:]]
    assert paths([folder / "s*"]) == [everything[2]]
    monkeypatch.chdir(folder)
    assert paths(["*.png", "sub"]) == [Path("b.png"), Path("sub/a.png")]
    Path("[x].png").write_bytes(picture(1))
    assert paths(["[x].png"]) == [Path("[x].png")]  # a file of that name is meant, not a pattern
    (folder / "sub" / "sub").write_bytes(picture(1))
    assert paths(["sub"]) == [Path("sub/a.png"), Path("sub/sub")]


def test_archives_and_lmdbs(folder, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(folder / "b.png", "in/b.png")
    write_lmdb(tmp_path / "set", ["a"], [picture(1)])
    named = [str(tmp_path / "all.tar"), str(tmp_path / "set")]
    assert [path for path, _ in stage.pictures(named)] == [
        f"{named[0]}/in/b.png",
        f"{named[1]}/image-000000001",
    ]
    assert {data for _, data in stage.pictures(named)} == {picture(1)}


def test_what_names_nothing_is_said_at_once(run, folder, tmp_path):
    (tmp_path / "bare").mkdir()
    (folder / "gone.png").symlink_to("nowhere.png")
    for images, message in (
        ([folder / "b.png", folder / "none.png"], "there is no file or folder .*none.png"),
        ([folder / "none"], "there is no file or folder .*none"),
        ([folder / "gone.png"], "there is no file or folder .*gone.png"),
        ([folder / "*.gif"], "no file matches the pattern .*gif"),
        ([tmp_path / "bare"], "there are no pictures in .*bare"),
        ([tmp_path / "b*e"], "there are no pictures in .*e"),
        ([], "there is nothing to read"),
    ):
        with pytest.raises(WrongUse, match=message):
            read(run, [str(image) for image in images], on_result=pytest.fail)


def test_a_file_of_zeros_is_no_empty_archive(run, folder):
    (folder / "a.png").write_bytes(bytes(20480))  # what a crash may leave of a file: tarfile takes it for an archive
    readings = read(run, [str(folder / "a.png"), str(folder / "b.png")])
    assert [Path(r.image).name for r in readings] == ["a.png", "b.png"]
    assert [r.problem for r in readings] == ["it is not a picture", None]


def test_what_may_not_be_read_is_a_problem(run, folder, monkeypatch):
    def refuse(source):
        raise PermissionError(13, "Permission denied", source)

    monkeypatch.setattr(stage, "photos", refuse)
    (reading,) = read(run, [str(folder / "b.png")])
    assert (reading.text, reading.problem) == (None, "it may not be read")


def test_runs_that_cannot_read(run, folder, tmp_path):
    decoder = make(Config(8, 8, 1, 1))
    other = Recorder(tmp_path / "pretrained", run_config(decoder.config))
    other.save_best(decoder, 1, {}, [])
    other.close()
    image = [str(folder / "b.png")]
    with pytest.raises(WrongUse, match="pre-trained run"):
        read(tmp_path / "pretrained", image)
    with pytest.raises(WrongUse, match="there is no run"):
        read(tmp_path / "none", image)
    with pytest.raises(WrongUse, match="there is no device"):
        read(run, image, "gpu")
    (tmp_path / "pretrained" / "best.pt").write_bytes(b"no")
    with pytest.raises(DptrError, match="is damaged"):
        read(tmp_path / "pretrained", image)


def test_each_starts_without_what_it_does_not_need():
    """In one process, one after the other: what one imports and may, the next may as well."""
    never = ["open_clip", "torchvision", "timm", "faiss", "datasets", "pandas"]
    code = "import sys\n"
    for module, heavy in {
        "train.reading.read": [*never, "h5py", "tensorboard", "pyarrow"],
        "train.pretrain": [*never, "matplotlib", "torch._dynamo"],
        "train.reading.evaluate": [*never, "matplotlib", "torch._dynamo"],
    }.items():
        code += f"import {module}; print('{module}', sorted(set({heavy}) & set(sys.modules)))\n"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["train.reading.read []", "train.pretrain []", "train.reading.evaluate []"]


def test_held_out_tsv_shows_control_characters_escaped(tmp_path):
    run = Recorder(tmp_path, run_config(tiny().config))
    run.save_best(tiny(), 1, {}, [Reading("a\x1bb", "c", 0.5, 0)])
    run.close()
    assert (tmp_path / "held-out.tsv").read_text().splitlines()[1] == "1.00\ta\\x1bb\tc"
