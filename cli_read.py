"""The commands that read pictures: `dptr finetune | evaluate | read | export`."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import WrongUse
from cache.files import write_whole
from console import Device, Json, Precision, Resume, Split, finish, say

Weights = Annotated[
    str | None, typer.Option(help="Where the encoder's weights lie, if not where the space found them.")
]
RunCache = Annotated[Path | None, typer.Option(help="Cache, if it is no longer where the run found it.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run.")]


def finetune(
    init: Annotated[Path, typer.Option(help="Pre-trained run whose decoder to begin with.")],
    train: Annotated[list[str], typer.Option(help="Word images: LMDB, folder of LMDBs or with a labels.tsv, dataset.")],
    val: Annotated[list[str], typer.Option(help="Word images to watch, and to choose the best checkpoint by.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    weight: Annotated[list[float] | None, typer.Option(help="How often an epoch sees each --train.")] = None,
    encoder: Annotated[
        str, typer.Option(help="clip: the space's own image tower; vit: the released one, new.")
    ] = "clip",
    freeze: Annotated[bool, typer.Option("--freeze", help="Leave the encoder alone; its tokens are cached.")] = False,
    image_size: Annotated[str | None, typer.Option(help="Pictures' size, as 32x128 (default: the tower's).")] = None,
    queries: Annotated[int, typer.Option(help="Learned queries of the FMU.")] = 26,
    no_fmu: Annotated[bool, typer.Option("--no-fmu", help="The decoder looks at the image's tokens.")] = False,
    scratch: Annotated[bool, typer.Option("--scratch", help="Random decoder of the run's shape: a control.")] = False,
    augment: Annotated[float, typer.Option(help="How much pictures are changed at random; 0: not at all.")] = 1.0,
    permutations: Annotated[
        int | None, typer.Option(help="Orders in which parseq predicts characters (default: as pre-trained).")
    ] = None,
    batch: Annotated[int, typer.Option(help="Word images in a step.")] = 256,
    epochs: Annotated[float, typer.Option(help="How often each word image is seen.")] = 20,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate (default: 7e-4 √2 batch / 256).")] = None,
    encoder_lr: Annotated[float | None, typer.Option(help="The encoder's (default: clip lr / 19, vit lr).")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations (default: a tenth).")] = None,
    eval_words: Annotated[int, typer.Option(help="Word images of --val read at each evaluation, at most.")] = 2000,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare pictures (default: cores - 1).")] = None,
    split: Split = "train",
    cache: RunCache = None,
    pretrained: Weights = None,
    seed: Annotated[int, typer.Option(help="Of new weights, order, permutations and changes.")] = 0,
    resume: Resume = "auto",
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fine-tune a recogniser on labelled word images: image encoder, FMU, pre-trained decoder."""
    given = locals()
    from train.finetune import Material
    from train.finetune import finetune as learn
    from train.finetune_options import FinetuneOptions, check

    names = FinetuneOptions.__dataclass_fields__.keys() - {"image_size", "queries"}
    options = FinetuneOptions(
        **{name: value for name, value in given.items() if name in names},
        weights=weight or [],
        image_size=_size(image_size) if image_size else None,
        queries=0 if no_fmu else queries,
    )
    check(options)
    space, tower = _tower(options, cache, pretrained)
    training = [_sets([source], split) for source in train]
    watched = _sets(val, split)
    tokens = _tokens(options, space, tower, [*(one for part in training for one in part), *watched])
    done = learn(options, Material(training, watched, space, tower, tokens), say)
    text = (
        f"run {out}: {done.steps:,} steps in {done.seconds:.1f} s ({done.crops_per_second:,.0f} word images/s, waiting "
        f"for them {done.waiting:.1%} of the time); best at step {done.best_step:,}: "
        f"{done.scores['accuracy_36']:.1%} of letters and digits right whatever their case, "
        f"{done.scores['word_accuracy']:.1%} of whole words"
    )
    finish(text, vars(done), as_json)


def evaluate(
    run: Run,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Word images; for a pre-trained run words. Default: --val of the run, its held-out words."),
    ] = None,
    split: Split = "train",
    cache: RunCache = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Corpora of a pre-trained run (default: its own).")] = None,
    pretrained: Weights = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most so many words of each set.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst readings to show.")] = 10,
    errors: Annotated[Path | None, typer.Option(help="Where misread words go (default: RUN/errors.html).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure how a run reads: word images, or, with a pre-trained run, the memories of words."""
    from train.evaluate import evaluate as read_held_out
    from train.evaluate import evaluate_crops, evaluate_texts, misread_page, run_space
    from train.result import table
    from train.run import is_finetuned, run_config

    sets = []
    if is_finetuned(run):
        sets = _sets(data or run_config(run)["val"], split)
        done = evaluate_crops(run, sets, limit, device)
    elif data:
        space = run_space(run_config(run), cache)
        texts = [_texts(source, split) for source in data]
        done = evaluate_texts(run, texts, _states(space, pretrained, device), space, limit, device)
    else:
        done = read_held_out(run, cache, corpus, limit, device)
    page = errors or run / "errors.html"
    write_whole(page, misread_page(done, sets).encode())
    finish(f"{table(done, worst)}\n\nmisread words: {page}", {**done.to_dict(), "errors": str(page)}, as_json)


def read(
    run: Run,
    images: Annotated[list[str], typer.Argument(help="Pictures of one word each, folders, or patterns like 'a*.jpg'.")],
    attention: Annotated[Path | None, typer.Option(help="Draw where the run looked, a tile a character.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Read pictures of words: text and confidence of each."""
    from train.read import read as read_pictures

    def show(one: Any) -> None:
        if one.problem:
            say(f"{one.image}: {one.problem}")
        elif not as_json:
            typer.echo(f"{one.image}\t{one.text}\t{one.confidence:.3f}")

    found = read_pictures(run, images, device, show)
    if attention:
        from train.attention import look

        say(f"where it looked in {look(run, images, attention, device):,} pictures: {attention}")
    if as_json:
        finish("", [vars(one) for one in found], True)
    if all(one.problem for one in found):
        raise typer.Exit(1)


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    kind: Annotated[str, typer.Option("--format", help="safetensors, openocr or onnx.")] = "safetensors",
    as_json: Json = False,
) -> None:
    """Write a run's weights for other programs."""
    from train.export import export as write

    summary = write(run, out, kind, say)
    finish(f"{run} written to {out}: {', '.join(summary['files'])}", summary, as_json)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise WrongUse(f"'{text}' is no size of pictures: write rows x columns, as 32x128.")
    return int(found[1]), int(found[2])


def _sets(sources: Sequence[str], split: str) -> list[Any]:
    from sources.labelled import labelled

    return [one for source in sources for one in labelled(source, split)]


def _texts(source: str, split: str) -> Any:
    """A source of words as a set without pictures."""
    from sources.labelled import Labelled
    from sources.words import Reading, words

    return Labelled(Path(source).name, list(words(source, Reading(split=split))), lambda _: b"")


def _tower(options: Any, cache: Path | None, pretrained: str | None) -> tuple[Any, Any]:
    """The space of the run that a decoder is from, and its image tower; nothing where a new encoder is wanted."""
    if options.encoder == "vit":
        return None, None
    from train.evaluate import run_space
    from train.run import pretrained_config

    config = pretrained_config(options.init)
    space = run_space(config, cache)
    say("loading torch and open_clip ...")
    from pipeline.tower import space_tower

    return space, space_tower(space, options.image_size, pretrained)


def _tokens(options: Any, space: Any, tower: Any, sets: Sequence[Any]) -> Any:
    """The frozen encoder's tokens of all pictures, embedded now where they are not yet; nothing if it learns."""
    if not options.freeze:
        return None
    from models.device import choose_device
    from pipeline.embed_crops import embed_crops
    from train.features import CachedTokens

    pictures = ((f"{one.name}/{n}", one.picture(n)) for one in sets for n in range(len(one)))
    count = sum(len(one) for one in sets)
    return CachedTokens(embed_crops(space, tower, choose_device(options.device), pictures, count, say))


def _states(space: Any, pretrained: str | None, device: str) -> Callable[[Sequence[str]], Any]:
    say("loading torch and open_clip ...")
    import numpy as np

    from pipeline.encoder import space_encoder

    encoder = space_encoder(space, pretrained, device)

    def states(labels: Sequence[str]) -> Any:
        ids = [encoder.prompt.ids(label) for label in labels]
        return encoder.text_states(ids), np.array([encoder.rows(i) for i in ids])

    return states
