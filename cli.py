"""The command line: `dptr COMMAND ...`, or `python cli.py COMMAND ...`.

Commands only: each parses, imports what it needs, calls one function and prints a summary. Nothing heavy is imported
before a command runs, so that --help answers at once.
"""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import DptrError, WrongUse
from cache.files import plain_name
from cli_cache import cache_app
from cli_read import evaluate, export, finetune, read
from console import (
    DEFAULT_CACHE,
    HELP,
    CacheDir,
    Commands,
    Device,
    Json,
    Precision,
    Resume,
    SpaceName,
    Split,
    finish,
    say,
)
from pipeline.prompt import PROMPT
from sources.cleaning import MAX_LENGTH

app = typer.Typer(cls=Commands, help="Embed words and photographs once; pre-train text readers many times.", **HELP)
app.add_typer(cache_app, name="cache")

Model = Annotated[str, typer.Option(help="wordclip, which comes with dptr, or any open_clip model.")]
Pretrained = Annotated[str, typer.Option(help="Weights: shipped, a tag of the model, a file, or untrained:SEED.")]
PromptText = Annotated[str, typer.Option("--prompt", help="Text around a label.")]
Layout = Annotated[str, typer.Option(help="Rows of a memory: compact (up to its end) or full (all, as released).")]
Column = Annotated[str | None, typer.Option(help="Column that is read: a name, or a number from 1 if no header.")]

DEFAULT_MODEL, DEFAULT_WEIGHTS = "wordclip", "shipped"


@app.command()
def embed_text(
    sources: Annotated[list[str], typer.Argument(help=".txt .csv .tsv .jsonl .parquet, an LMDB, or a dataset's name")],
    corpus: Annotated[str, typer.Option(help="Name of the corpus the labels go to.")],
    cache: CacheDir = DEFAULT_CACHE,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_WEIGHTS,
    prompt: PromptText = PROMPT,
    layout: Layout = "compact",
    precision: Precision = "auto",
    device: Device = "auto",
    column: Column = None,
    encoding: Annotated[str, typer.Option(help="Character encoding of text files.")] = "utf-8-sig",
    split: Split = "train",
    keep_unicode: Annotated[
        bool, typer.Option("--unicode", help="Keep characters beyond ASCII, instead of folding them.")
    ] = False,
    max_length: Annotated[int, typer.Option(min=1, help="Longest label in characters.")] = MAX_LENGTH,
    as_json: Json = False,
) -> None:
    """Embed words: their token states go to the cache, each prompt once, and their labels to a corpus."""
    from pipeline.labels import collect
    from sources.words import Reading, words

    plain_name("corpus", corpus)
    how = Reading(column, encoding, split)
    labels = collect((word for source in sources for word in words(source, how)), max_length, keep_unicode)
    if not len(labels):
        raise DptrError(f"no usable word in {', '.join(sources)}: {labels.report()}.")
    from pipeline.embed_text import embed_text as embed

    encoder = _encoder(model, pretrained, prompt, layout, precision, device)
    done = embed(cache, encoder, labels, corpus, say)
    rate = f" ({done.new_memories / done.seconds:,.0f} words/s)" if done.new_memories else ""
    text = (
        f"corpus '{corpus}': {done.new_labels:,} labels added; {done.new_memories:,} memories encoded in "
        f"{done.seconds:.1f} s{rate}, {done.known_memories:,} already cached"
    )
    losses = "".join(f"\n  dropped: {count:,} {reason}" for reason, count in done.dropped.items())
    finish(text + losses, vars(done), as_json)


@app.command()
def embed_images(
    sources: Annotated[list[str], typer.Argument(help="folder, tar, LMDB, picture, or a dataset's name")],
    bank: Annotated[str, typer.Option(help="Name of the bank the features go to.")],
    cache: CacheDir = DEFAULT_CACHE,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_WEIGHTS,
    prompt: PromptText = PROMPT,
    layout: Layout = "compact",
    precision: Precision = "auto",
    device: Device = "auto",
    column: Column = None,
    split: Split = "train",
    as_json: Json = False,
) -> None:
    """Embed photographs: all their image tokens go to a bank, with a FAISS index over the class token."""
    from sources.photos import photo_count, photos

    plain_name("bank", bank)
    pictures = (picture for source in sources for picture in photos(source, split, column))
    first = next(pictures, None)  # before the encoder is loaded: a source that is not there is said at once
    if first is None:
        raise WrongUse(f"there are no pictures in {', '.join(sources)}.")
    counts = [photo_count(source) for source in sources]
    count = None if None in counts else sum(c or 0 for c in counts)
    from pipeline.embed_images import embed_images as embed

    encoder = _encoder(model, pretrained, prompt, layout, precision, device)
    done = embed(cache, encoder, chain([first], pictures), count, bank, say)
    text = (
        f"bank '{bank}': {done.new:,} pictures added in {done.seconds:.1f} s, {done.known:,} already there, "
        f"{len(done.skipped):,} skipped; {done.shape[0]} x {done.shape[1]} features each"
    )
    losses = "".join(f"\n  skipped: {name}: {reason}" for name, reason in list(done.skipped.items())[:5])
    finish(text + losses, vars(done), as_json)


@app.command()
def pretrain(
    corpus: Annotated[list[str], typer.Option(help="Corpus to train on; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    bank: Annotated[str | None, typer.Option(help="Bank to perturb memories with; none: no perturbation.")] = None,
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    charset: Annotated[str, typer.Option(help="Characters to write: 36, 62, 94, or a file that holds them.")] = "94",
    decoder: Annotated[str, typer.Option(help="Its kind: parseq, nrtr, abinet or ctc (train/decoders).")] = "parseq",
    depth: Annotated[int, typer.Option(help="Layers of the decoder.")] = 6,
    width: Annotated[int | None, typer.Option(help="Width of the decoder (default: that of the memories).")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads (default: one for each 64 of width).")] = None,
    dropout: Annotated[float, typer.Option(help="Dropout.")] = 0.1,
    permutations: Annotated[
        int | None, typer.Option(help="Orders in which parseq predicts each batch's characters (default: 6).")
    ] = None,
    orp: Annotated[float | None, typer.Option(help="λ: strength of the perturbation (default: 0.1).")] = None,
    orp_relative: Annotated[float | None, typer.Option(help="λ as a share of the memory's mean row norm.")] = None,
    orp_positions: Annotated[
        str, typer.Option(help="Image tokens: shared by the batch, or drawn a sample.")
    ] = "shared",
    zero_memory: Annotated[
        bool,
        typer.Option("--zero-memory", help="Nothing but zeros to read, so only the language is learnt: a control."),
    ] = False,
    batch: Annotated[int, typer.Option(help="Words in a step.")] = 384,
    epochs: Annotated[float, typer.Option(help="How often each word is seen.")] = 20,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate (default: 7e-4 √2 batch / 256).")] = None,
    held_out: Annotated[float, typer.Option(help="Share of words kept from training, by a hash of the word.")] = 0.05,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations (default: a tenth).")] = None,
    eval_words: Annotated[int, typer.Option(help="Held-out words read at each evaluation, at most.")] = 1000,
    ema: Annotated[float, typer.Option(help="Decay of the average of weights that is kept as best; 0: none.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order, permutations and perturbation.")] = 0,
    resume: Resume = "auto",
    reader: Annotated[str, typer.Option(help="Memories are resident, mapped or streamed; auto: by size.")] = "auto",
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Pre-train a decoder on cached memories; CLIP is not needed."""
    from train.options import PretrainOptions
    from train.pretrain import pretrain as train

    given = {name: value for name, value in locals().items() if name in PretrainOptions.__dataclass_fields__}
    done = train(PretrainOptions(corpora=corpus, **given), say)
    text = (
        f"run {out}: {done.steps:,} steps in {done.seconds:.1f} s ({done.words_per_second:,.0f} words/s); best at step "
        f"{done.best_step:,}: {done.scores['word_accuracy']:.1%} of held-out words right "
        f"({done.scores['ignoring_case']:.1%} ignoring case), character error {done.scores['character_error']:.1%}"
    )
    finish(text, vars(done), as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's cache and run, made anew.")] = Path("demo-out"),
) -> None:
    """Run the whole chain on words and photographs that are installed with dptr, in a few minutes."""
    from demo import demo as run_demo

    typer.echo(run_demo(out, say))


for command in (finetune, evaluate, read, export):
    app.command()(command)


def _encoder(model: str, pretrained: str, prompt: str, layout: str, precision: str, device: str) -> Any:
    say("loading torch and open_clip ...")
    from pipeline.encoder import Encoder

    return Encoder(model, pretrained, prompt=prompt, layout=layout, precision=precision, device=device)


def main() -> None:
    """Entry point of the installed `dptr`."""
    app()


if __name__ == "__main__":
    main()
