"""Commands that use a run: `dptr evaluate | read | export`. What is exported, and a shipped reader, count as runs."""

import glob
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import WrongUse
from cache.files import write_whole
from commands.console import Device, Json, RunCache, Split, Weights, finish, say
from commands.gather import comparable_sets, labelled_sets, text_states, tower_of, words_as_set
from train.finetune_options import FinetuneOptions

Run = Annotated[Path, typer.Argument(help="Run, exported folder, or name of a shipped reader.")]
ZeroLabel = Annotated[
    bool,
    typer.Option("--zero-label", help="Read pictures with a run that is only pre-trained, by its space's image tower."),
]


def evaluate(
    run: Run,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Word images, or words for a pre-trained run (default: the run's --val, or its held-out words)."
        ),
    ] = None,
    split: Split = "train",
    cache: RunCache = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Corpus of held-out words (default: the run's own).")] = None,
    pretrained: Weights = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of words to read per set.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="Number of worst readings to show.")] = 10,
    errors: Annotated[
        Path | None,
        typer.Option(
            help="Page of misread words to write (default: RUN/errors.html; for a shipped reader, READER-errors.html)."
        ),
    ] = None,
    device: Device = "auto",
    zero_label: ZeroLabel = False,
    ceiling: Annotated[
        Path | None, typer.Option(help="With --zero-label: a fine-tuned run, whose accuracy is what labels can add.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how well a run reads word images or, if it is only pre-trained, memories of words."""
    from models.device import choose_device
    from train.ranks import join
    from train.reading.errors_page import errors_page
    from train.reading.evaluate import evaluate as read_held_out
    from train.reading.evaluate import evaluate_crops, evaluate_texts
    from train.reading.result import table
    from train.run import run_config

    if ceiling and not zero_label:
        raise WrongUse("--ceiling is what --zero-label is compared with: give both, or evaluate that run by itself.")
    sets, config = [], run_config(run)
    ranks, target = join(choose_device(device))
    device = str(target)
    if isinstance(config.options, FinetuneOptions):
        if not (data or config.options.val):
            raise WrongUse(f"{run} was exported, without its --val: name word images with --data.")
        sets = labelled_sets(data or config.options.val, split)
        done = evaluate_crops(run, sets, limit, device, ranks=ranks)
    elif zero_label:
        if not data:
            raise WrongUse("--zero-label reads word images: name some with --data.")
        sets = labelled_sets(data, split)
        tower = tower_of(config.space(cache), None, pretrained)
        done = evaluate_crops(run, sets, limit, device, tower=tower, ranks=ranks)
    elif data:
        space = config.space(cache)
        texts = [words_as_set(source, split) for source in data]
        done = evaluate_texts(run, texts, text_states(space, pretrained, device), space, limit, device, ranks)
    else:
        done = read_held_out(run, cache, corpus, limit, device, ranks)
    page = errors or (run / "errors.html" if run.is_dir() else Path(f"{run}-errors.html"))
    if ranks.first:
        write_whole(page, errors_page(done, sets).encode())
    text, summary = f"{table(done, worst)}\n\nmisread words: {page}", {**done.to_dict(), "errors": str(page)}
    if ceiling:
        best = evaluate_crops(ceiling, sets, limit, device, ranks=ranks).scores
        ours = done.scores.accuracy_36
        text += f"\nceiling: {ceiling}, trained on labelled pictures, reads {best.accuracy_36:.1%} (column 36)"
        if best.accuracy_36:
            text += f"; {ours / best.accuracy_36:.1%} of that is reached without a label"
        summary["ceiling"] = {"run": str(ceiling), "scores": asdict(best)}
    ranks.leave()
    finish(text, summary, as_json)


def read(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] PICTURE...",
            help="Pictures of one word each, folders, or patterns like 'a*.jpg'; before them, a run to read with "
            "(default: the shipped reader).",
        ),
    ],
    attention: Annotated[
        Path | None, typer.Option(help="PNG to draw attention maps to, one tile per character.")
    ] = None,
    zero_label: ZeroLabel = False,
    cache: RunCache = None,
    pretrained: Weights = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Read pictures of words; prints the file, text and confidence of each, and a ? if it is unsure.

    Exits with 1 if some could not be read. --json also has the confidence of each character.
    """
    from cache.report import printable
    from models.device import choose_device
    from train.ranks import join
    from train.reading.read import read as read_pictures
    from train.run import pretrained_config

    run, images = _run_and_pictures(images)
    ranks, target = join(choose_device(device))
    tower = tower_of(pretrained_config(run).space(cache), None, pretrained) if zero_label else None

    def show(one: Any) -> None:
        if one.problem:
            say(printable(f"{one.image}: {one.problem}"))
        elif not as_json:
            unsure = "?" if one.unsure else ""
            typer.echo(f"{printable(one.image)}\t{printable(one.text)}\t{one.confidence:.3f}\t{unsure}")

    found = read_pictures(run, images, str(target), show, tower, ranks)
    ranks.leave()
    if not ranks.first:
        return  # as if all were well: torchrun ends the others as soon as one fails, and the first is to print
    if attention:
        from train.reading.attention_page import look

        say(f"attention maps of {look(run, images, attention, device):,} pictures: {attention}")
    if as_json:
        finish("", [vars(one) for one in found], True)
    unread = sum(one.problem is not None for one in found)
    if unread:
        say(f"{unread:,} of {len(found):,} pictures could not be read")
        raise typer.Exit(1)


def _run_and_pictures(named: list[str]) -> tuple[Path, list[str]]:
    """The run, which comes first if one is named, and the pictures. WrongUse for a run alone, and for neither."""
    from train.shipped import find_run, shipped_reader

    first, *rest = named
    if find_run(Path(first)):
        if not rest:
            raise WrongUse(f"{first} is a run: name the pictures to read after it.")
        return Path(first), rest
    if not (os.path.lexists(first) or glob.has_magic(first)):
        raise WrongUse(f"there is no run, picture or folder {first}: check the path.")
    return shipped_reader(), named


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    kind: Annotated[str, typer.Option("--format", help="safetensors, openocr or onnx.")] = "safetensors",
    half: Annotated[bool, typer.Option("--half", help="Store safetensors in fp16: half the size.")] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Store the matrices of safetensors in 8 bits, a quarter of the size; with --format onnx: also a file "
            "with 8-bit weights, and its accuracy.",
        ),
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(help="With --format onnx --int8: word images to compare them on (default: --val)."),
    ] = None,
    split: Split = "train",
    as_json: Json = False,
) -> None:
    """Write a run's weights for other programs."""
    from train.export import export as write
    from train.run import run_config

    if data and not (int8 and kind == "onnx"):
        raise WrongUse("--data is what --format onnx --int8 is measured on: add both, or leave out --data.")
    sets = comparable_sets(run_config(run).options, data, split) if int8 and kind == "onnx" else []
    summary = write(run, out, kind, say, half, int8, sets)
    finish(f"{run} written to {out}: {', '.join(summary['files'])}", summary, as_json)
