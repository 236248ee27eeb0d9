"""The page of misread words, worst first: one self-contained HTML file."""

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

HEIGHT, WIDTH = 64, 512  # pixels of a picture, at most: thousands of them go into one file


def errors_page(done: Evaluation, sets: Sequence[Labelled] = (), limit: int = 2000) -> str:
    """The worst `limit` misread words of an evaluation as a self-contained HTML page.

    If the evaluated `sets` are given, words are shown with their pictures and keys; a picture that cannot be decoded is
    replaced by the reason.
    """
    misread = [
        (s.name, r, one)
        for s, one in zip_longest(done.sets, sets)  # paired by order: two sets may have the same name
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
    return page.encode("utf-8", "replace").decode()  # lone surrogates become question marks


def _pieces(reading: Reading) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The truth and the text in pieces, each with whether it differs from the other."""
    truth, text = [], []
    for same, a, b, c, d in SequenceMatcher(None, reading.truth, reading.text, autojunk=False).get_opcodes():
        truth += [(reading.truth[a:b], same != "equal")] * (a < b)
        text += [(reading.text[c:d], same != "equal")] * (c < d)
    return truth, text


def _small(data: bytes) -> dict[str, str]:
    """The picture as a small JPEG in a data URL (`address`), or why it cannot be decoded (`problem`)."""
    try:
        picture = decode(data)
    except ValueError as error:
        return {"problem": str(error)}
    picture.thumbnail((WIDTH, HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return {"address": f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"}
