"""The page of misread words: one HTML file to look through, the worst first, that needs nothing beside it."""

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from importlib.resources import files
from string import Template

from rapidfuzz.distance import Levenshtein

from sources.pictures import decode

HEIGHT, WIDTH = 64, 512  # pixels a picture has at most: thousands of them go into one file


@dataclass(frozen=True)
class Misread:
    """A word that was misread: `confidence` in 0..1; `picture` encoded as in its source, None where there is none."""

    dataset: str
    truth: str
    reading: str
    confidence: float
    picture: bytes | None


def errors_page(title: str, misread: Sequence[Misread], words: int, limit: int = 2000) -> str:
    """The worst `limit` of `misread`, out of `words` words read, as a self-contained HTML page.

    Sorted by edit distance over the length of the truth, then by confidence, both falling: confidently wrong is worse.
    A picture that cannot be decoded leaves its place to the reason.
    """
    shown = sorted(misread, key=_badness, reverse=True)[:limit]
    counts = Counter(m.dataset for m in shown)
    numbers = {dataset: n for n, dataset in enumerate(sorted(counts))}
    if not misread:
        note = f"None of {words:,} words was misread."
    elif len(shown) < len(misread):
        note = f"Only the worst {len(shown):,} of {len(misread):,} misread words are on this page."
    else:
        note = ""
    options = (f'<option value="{n}">{_text(d)} ({counts[d]:,})</option>' for d, n in numbers.items())
    return Template(files("train.reading").joinpath("errors_page.html").read_text("utf-8")).substitute(
        title=_text(title),
        note=note,
        empty="" if shown else "hidden",
        options="\n".join((f'<option value="">all ({len(shown):,})</option>', *options)),
        shown=f"{len(shown):,}",
        total=f"{len(misread):,} misread, {words:,} words",
        entries="\n".join(_entry(m, numbers[m.dataset]) for m in shown),
    )


def _badness(m: Misread) -> tuple[float, float]:
    return Levenshtein.distance(m.truth, m.reading) / max(1, len(m.truth)), m.confidence


def _entry(m: Misread, number: int) -> str:
    truth, reading = _marked(m.truth, m.reading)
    return (
        f'<li data-dataset="{number}">{_picture(m.picture)}<dl>'
        f'<dt>truth</dt><dd><bdi class="truth" dir="auto">{truth}</bdi></dd>'
        f'<dt>read as</dt><dd><bdi class="reading" dir="auto">{reading}</bdi></dd></dl>'
        f'<p><bdi dir="auto">{_text(m.dataset)}</bdi><span>{m.confidence:.0%} confident</span></p></li>'
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
