"""The page of misread words: one HTML file to look through, the worst first, that needs nothing beside it."""

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from importlib.resources import files
from itertools import zip_longest

from jinja2 import Environment

from sources.labelled import Labelled
from sources.pictures import decode
from train.reading.result import Evaluation, Reading

HEIGHT, WIDTH = 64, 512  # pixels a picture has at most: thousands of them go into one file


def errors_page(done: Evaluation, sets: Sequence[Labelled] = (), limit: int = 2000) -> str:
    """The worst `limit` misread words of an evaluation as a self-contained HTML page.

    With their pictures and keys, if `sets` are those that were evaluated. A picture that cannot be decoded leaves its
    place to the reason.
    """
    misread = [
        (s.name, r, one)
        for s, one in zip_longest(done.sets, sets)  # in their order: two sets may have the same name
        for r in s.readings
        if not r.right
    ]
    shown = sorted(misread, key=lambda entry: entry[1].badness, reverse=True)[:limit]
    datasets = sorted(Counter(name for name, _, _ in shown).items())
    templates = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters |= {"pieces": _pieces, "small": _small}
    page = templates.from_string(files("train.reading").joinpath("errors_page.html").read_text("utf-8")).render(
        title=f"{done.run}, step {done.checkpoint_step:,}",
        words=done.scores.words,
        misread=len(misread),
        shown=shown,
        datasets=datasets,
        numbers={name: n for n, (name, _) in enumerate(datasets, 1)},
    )
    return page.encode("utf-8", "replace").decode()  # without the halves of characters that no file can hold


def _pieces(reading: Reading) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The truth and the text in pieces, each with whether it differs."""
    truth, text = [], []
    for same, a, b, c, d in SequenceMatcher(None, reading.truth, reading.text, autojunk=False).get_opcodes():
        truth += [(reading.truth[a:b], same != "equal")] * (a < b)
        text += [(reading.text[c:d], same != "equal")] * (c < d)
    return truth, text


def _small(data: bytes) -> dict[str, str]:
    """The `address` of the picture as a small JPEG, which is all of its data, or the `problem` with it."""
    try:
        picture = decode(data)
    except ValueError as error:
        return {"problem": str(error)}
    picture.thumbnail((WIDTH, HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return {"address": f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"}
