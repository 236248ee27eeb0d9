"""However pictures of words are stored, `evaluate` and `read` see the same pixels, so the accuracy is the same."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import app
from tests.helpers.pictures import drawn
from tests.train.reading.test_read import save, tiny

WORDS = ["street", "EXIT", "12:30", "cafe", "hello", "$4.99", "a", "tomorrow"]
WAYS = ("plain", "turned", "deep", "transparent", "palette")


def stored(text: str, way: str) -> Image.Image:
    """A drawn word stored in each of the ways, always with the same grey pixels."""
    with Image.open(io.BytesIO(drawn(text))) as image:
        grey = np.asarray(image.convert("L"))
    if way == "turned":
        return Image.fromarray(grey).rotate(90, expand=True)
    if way == "deep":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if way == "transparent":  # black, where it is not seen through
        return Image.fromarray(np.dstack([np.zeros_like(grey), 255 - grey]))
    if way == "palette":
        return Image.fromarray(grey).convert("P")
    return Image.fromarray(grey).convert("RGB")


def done(*arguments):
    finished = CliRunner().invoke(app, list(map(str, arguments)))
    assert finished.exit_code == 0, finished.stderr or finished.exception
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A run, and a folder of crops for each way; half of the labels are what the run reads."""
    work = tmp_path_factory.mktemp("work")
    save(work / "run", tiny())
    exif = Image.Exif()
    exif[274] = 6
    for way in WAYS:
        (work / way).mkdir()
        for n, text in enumerate(WORDS):
            more = {"exif": exif} if way == "turned" else {}
            stored(text, way).save(work / way / f"{n}.png", **more)
    texts = [one["text"] for one in done("read", work / "run", work / "plain", "--json")]
    for way in WAYS:
        labels = [(n % 2 and text) or "other" for n, text in enumerate(texts)]
        lines = (f"{n}.png\t{label}\n" for n, label in enumerate(labels))
        (work / way / "labels.tsv").write_text("".join(lines))
    return work


def test_the_files_differ_and_the_texts_do_not(work):
    bytes_of = {way: (work / way / "0.png").read_bytes() for way in WAYS}
    assert len(set(bytes_of.values())) == len(WAYS)
    read = {way: done("read", work / "run", work / way, "--json") for way in WAYS}
    evaluated = {way: done("evaluate", work / "run", "--data", work / way, "--json")["sets"][0] for way in WAYS}
    plain = [(one["text"], one["confidence"]) for one in read["plain"]]
    assert len({text for text, _ in plain}) > 2
    assert 0.3 < evaluated["plain"]["score"]["word_accuracy"] < 0.6
    for way in WAYS:
        assert [(one["text"], one["confidence"]) for one in read[way]] == plain
        found = sorted((one["number"], one["text"]) for one in evaluated[way]["readings"])
        assert found == [(n, text) for n, (text, _) in enumerate(plain)]
        assert evaluated[way]["score"] == evaluated["plain"]["score"]
