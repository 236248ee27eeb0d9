"""The page of misread words: one HTML file to look through, the worst first, that needs nothing beside it."""

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape
from importlib.resources import files
from itertools import zip_longest
from string import Template

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
    shown = sorted(misread, key=lambda m: m[1].badness, reverse=True)[:limit]
    words = done.scores.words
    counts = Counter(name for name, _, _ in shown)
    numbers = {dataset: n for n, dataset in enumerate(sorted(counts))}
    if not misread:
        note = f"None of {words:,} words was misread."
    elif len(shown) < len(misread):
        note = f"Only the worst {len(shown):,} of {len(misread):,} misread words are on this page."
    else:
        note = ""
    options = (f'<option value="{n}">{_text(d)} ({counts[d]:,})</option>' for d, n in numbers.items())
    return Template(files("train.reading").joinpath("errors_page.html").read_text("utf-8")).substitute(
        title=_text(f"{done.run}, step {done.checkpoint_step:,}"),
        note=note,
        empty="" if shown else "hidden",
        options="\n".join((f'<option value="">all ({len(shown):,})</option>', *options)),
        shown=f"{len(shown):,}",
        total=f"{len(misread):,} misread, {words:,} words",
        entries="\n".join(_entry(name, numbers[name], r, one) for name, r, one in shown),
    )


def _entry(dataset: str, number: int, r: Reading, one: Labelled | None) -> str:
    truth, reading = _marked(r.truth, r.text)
    return (
        f'<li data-dataset="{number}">{_picture(one.picture(r.number) if one else None)}<dl>'
        f'<dt>truth</dt><dd><bdi class="truth" dir="auto">{truth}</bdi></dd>'
        f'<dt>read as</dt><dd><bdi class="reading" dir="auto">{reading}</bdi></dd></dl>'
        f'<p><bdi dir="auto">{_text(dataset)}</bdi><span>{r.confidence:.0%} confident</span></p></li>'
    )


def _marked(truth: str, reading: str) -> tuple[str, str]:
    """Both as HTML, with <mark> around the letters that differ."""
    parts: tuple[list[str], list[str]] = ([], [])
    for same, a, b, c, d in SequenceMatcher(None, truth, reading, autojunk=False).get_opcodes():
        for part, letters in zip(parts, (_text(truth[a:b]), _text(reading[c:d])), strict=True):
            part.append(letters if same == "equal" or not letters else f"<mark>{letters}</mark>")
    return "".join(parts[0]), "".join(parts[1])


def _picture(data: bytes | None) -> str:
    if data is None:
        return ""
    try:
        picture = decode(data)
    except ValueError as error:
        return f'<div class="none">picture not shown: {_text(str(error))}</div>'
    picture.thumbnail((WIDTH, HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    source = f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
    return f'<img alt="" loading="lazy" decoding="async" src="{source}">'  # its text is the truth, which follows


def _text(text: str) -> str:
    """Escaped, and without the halves of characters that no file can hold."""
    return escape(text.encode("utf-8", "replace").decode())
