"""Commands that make the cache: `dptr embed-text | embed-images`."""

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import DptrError, WrongUse
from cache.files import check_folder, plain_name
from cache.report import printable
from commands.console import DEFAULT_CACHE, CacheDir, Device, Json, Precision, Split, finish, say
from commands.worker import On, elsewhere
from pipeline.prompt import PROMPT
from sources.cleaning import MAX_LENGTH
from sources.drawn.hard import check_share
from train.options import DATA, FIRST, MODEL

Model = Annotated[
    str, typer.Option(help="wordclip2, which comes with dptr, or any open_clip model.", rich_help_panel=FIRST)
]
Pretrained = Annotated[
    str, typer.Option(help="Weights: shipped, a tag of the model, a file, or untrained:SEED.", rich_help_panel=FIRST)
]
PromptText = Annotated[
    str, typer.Option("--prompt", help="Prompt, with {label} in place of the word.", rich_help_panel=MODEL)
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Rows of a memory: compact (up to the end token), shared (the same, projected to where image tokens are) "
        "or full (all, as in the released code); the default is shared for wordclip2, else compact.",
        rich_help_panel=MODEL,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="Column to read: its name, number from 1 (no header), or 0: whole lines.",
        rich_help_panel=DATA,
    ),
]
DEFAULT_MODEL, DEFAULT_WEIGHTS = "wordclip2", "shipped"


def embed_text(
    sources: Annotated[list[str], typer.Argument(help=".txt .csv .tsv .jsonl .parquet, LMDBs, or a dataset's name")],
    corpus: Annotated[str, typer.Option(help="Corpus to add the labels to.", rich_help_panel=FIRST)],
    cache: CacheDir = DEFAULT_CACHE,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_WEIGHTS,
    prompt: PromptText = PROMPT,
    layout: Layout = None,
    precision: Precision = "auto",
    device: Device = "auto",
    on: On = None,
    column: Column = None,
    encoding: Annotated[
        str, typer.Option(help="Character encoding of text files.", rich_help_panel=DATA)
    ] = "utf-8-sig",
    split: Split = "train",
    keep_unicode: Annotated[
        bool,
        typer.Option("--unicode", help="Keep non-ASCII characters instead of folding them.", rich_help_panel=DATA),
    ] = False,
    keep_spaces: Annotated[
        bool,
        typer.Option("--keep-spaces", help="Keep single spaces between words of a label.", rich_help_panel=DATA),
    ] = False,
    max_length: Annotated[
        int, typer.Option(min=1, help="Maximum length of a label, in characters.", rich_help_panel=DATA)
    ] = MAX_LENGTH,
    hard_words: Annotated[
        float,
        typer.Option(help="Fraction of labels to make up: numbers, codes, misspelt words.", rich_help_panel=DATA),
    ] = 0.0,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Make the corpus what the sources are now; others go.", rich_help_panel=DATA),
    ] = False,
    as_json: Json = False,
) -> None:
    """Embed words: their token states go to the cache, each prompt once, and their labels to a corpus."""
    from cache.remote import on_disk
    from pipeline.hard_words import add_hard_words
    from pipeline.labels import collect
    from sources.words import Reading, words

    plain_name("corpus", corpus)
    check_share(hard_words)
    on_disk(cache, "embed-text")
    check_folder("--cache", cache)
    others = elsewhere(on, device)
    how = Reading(column, encoding, split, say)
    labels = collect((word for source in sources for word in words(source, how)), max_length, keep_unicode, keep_spaces)
    if not len(labels):
        raise DptrError(f"no usable word in {', '.join(sources)}: {labels.report()}.")
    if hard_words:
        add_hard_words(labels, hard_words, max_length, keep_spaces)
    from pipeline.embed_text import embed_text as embed

    encoder = _encoder(cache, model, pretrained, prompt, layout, precision, device)
    done = embed(cache, encoder, labels, corpus, say, replace, others)
    rate = f" ({done.new_memories / done.seconds:,.0f} words/s)" if done.new_memories else ""
    removed = f", {done.removed_labels:,} removed (their memories stay cached)" if replace else ""
    text = (
        f"corpus '{corpus}': {done.new_labels:,} labels added{removed}; {done.new_memories:,} memories encoded in "
        f"{done.seconds:.1f} s{rate}, {done.known_memories:,} already cached"
    )
    losses = "".join(f"\n  dropped: {count:,} {reason}" for reason, count in done.dropped.items())
    finish(text + losses, vars(done), as_json)


def embed_images(
    sources: Annotated[list[str], typer.Argument(help="folder, tar, LMDB, picture, or a dataset's name")],
    bank: Annotated[str, typer.Option(help="Bank to add the features to.", rich_help_panel=FIRST)],
    cache: CacheDir = DEFAULT_CACHE,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_WEIGHTS,
    prompt: PromptText = PROMPT,
    layout: Layout = None,
    precision: Precision = "auto",
    device: Device = "auto",
    on: On = None,
    column: Column = None,
    split: Split = "train",
    index: Annotated[
        str,
        typer.Option(
            help="FAISS index: exact, ivf, pq (small), hnsw (fast), or auto: exact up to 50,000 pictures, then ivf.",
            rich_help_panel=DATA,
        ),
    ] = "auto",
    max_text_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Leave out photographs that seem to have text in them: with a higher score, from 0 to 1 "
            "(needs a --model trained on captions).",
            rich_help_panel=DATA,
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Make the bank what the sources are now; others go.", rich_help_panel=DATA),
    ] = False,
    as_json: Json = False,
) -> None:
    """Embed photographs: all their image tokens go to a bank, with a FAISS index over the class token."""
    from cache.bank import ALIKE
    from cache.index import chosen
    from cache.remote import on_disk
    from sources.photos import photo_count, photos

    chosen(index, 1)
    plain_name("bank", bank)
    on_disk(cache, "embed-images")
    check_folder("--cache", cache)
    others = elsewhere(on, device)
    pictures = (picture for source in sources for picture in photos(source, split, column))
    first = next(pictures, None)  # before the encoder is loaded, so that a missing source is reported at once
    if first is None:
        raise WrongUse(f"there are no pictures in {', '.join(sources)}.")
    counts = [photo_count(source) for source in sources]
    count = None if None in counts else sum(c or 0 for c in counts)
    from pipeline.embed_images import embed_images as embed

    encoder = _encoder(cache, model, pretrained, prompt, layout, precision, device)
    given = chain([first], pictures)
    done = embed(cache, encoder, given, count, bank, say, index, max_text_score, replace, others)
    removed = f"{done.removed:,} removed, " if replace else ""
    text = (
        f"bank '{bank}': {done.new:,} pictures added in {done.seconds:.1f} s, {removed}"
        f"{done.known:,} known (in the bank, or given twice), "
        f"{len(done.skipped):,} skipped; {done.shape[0]} x {done.shape[1]} features each; "
        f"{done.index}, brought up to date in {done.index_seconds:.1f} s"
    )
    if done.alike:
        one, other = map(printable, done.alike[0])
        text += (
            f"\n  near-duplicates (cosine above {ALIKE}): {len(done.alike):,} of {done.looked_at:,} pictures looked at "
            f"have one, such as {one} and {other}"
        )
    losses = "".join(
        f"\n  skipped: {printable(name)}: {printable(reason)}" for name, reason in list(done.skipped.items())[:5]
    )
    finish(text + losses, {**vars(done), "index": asdict(done.index)}, as_json)


def _encoder(
    cache: Path, model: str, pretrained: str, prompt: str, layout: str | None, precision: str, device: str
) -> Any:
    say("loading torch and open_clip ...")
    from pipeline.encoder import Encoder
    from pipeline.stage import at_its_space

    encoder = Encoder(model, pretrained, prompt=prompt, layout=layout, precision=precision, device=device)
    return at_its_space(cache, encoder, say) if precision == "auto" else encoder
