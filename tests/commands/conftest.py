"""A folder to type commands in."""

import pytest

from tests.helpers.commands import SMALL, run
from tests.helpers.once import once
from tests.helpers.pictures import picture


@pytest.fixture(scope="session")
def embedded(tmp_path_factory):
    """A folder with words, pictures, and a cache made from them. Not to be written to."""
    return once(tmp_path_factory, "embedded", _embed)


def _embed(folder):
    (folder / "words.txt").write_text("\n".join(str(n) for n in range(300)) + "\n\nCafé\n" + "x" * 40 + "\n")
    (folder / "photos").mkdir()
    for n in range(3):
        (folder / "photos" / f"{n}.png").write_bytes(picture(n))
    (folder / "photos" / "broken.jpg").write_bytes(b"broken")
    text = run("embed-text", "words.txt", "--corpus", "numbers", *SMALL, cwd=folder)
    assert text.returncode == 0, text.stderr
    images = run("embed-images", "photos", "--bank", "photos", *SMALL, cwd=folder)
    assert images.returncode == 0, images.stderr
    (folder / "text.out").write_text(text.stdout)
    (folder / "text.err").write_text(text.stderr)
    (folder / "images.out").write_text(images.stdout)
