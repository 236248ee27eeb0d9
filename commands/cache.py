"""The commands that look after a cache: `dptr cache info | verify | gc | export | plot`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cache.errors import DptrError, WrongUse
from cache.report import counted, printable
from commands.console import (
    DEFAULT_CACHE,
    HELP,
    CacheDir,
    Commands,
    Device,
    Json,
    SpaceName,
    Split,
    Weights,
    finish,
    say,
)

if TYPE_CHECKING:
    from cache.transfer import Transfer

cache_app = typer.Typer(cls=Commands, help="Inspect and maintain a cache.", **HELP)


@cache_app.command()
def info(cache: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """Show what a cache holds: spaces, corpora, banks, counts, bytes, fingerprints."""
    from cache.info import describe, show

    found = describe(cache)
    finish(show(found), found, as_json)


@cache_app.command()
def verify(
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop damaged parts, so that embedding makes them again.")
    ] = False,
    encoder: Annotated[bool, typer.Option("--encoder", help="Also embed the self-test again and compare.")] = False,
    pretrained: Annotated[str | None, typer.Option(help="For --encoder: the weights, if they have moved.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Read every byte of a cache and compare it with its checksum."""
    from cache.remote import on_disk
    from cache.verify import bytes_listed
    from cache.verify import verify as read_all

    on_disk(cache, "cache verify")
    with _progress("verify", bytes_listed(cache, space), "B") as progress:
        found = read_all(cache, space, repair, progress)
    summary = found.to_dict()
    lines = [f"{p.path}: {p.what}\n    {p.remedy if repair else 'with --repair: ' + p.remedy}" for p in found.problems]
    lines += [f"{path}: in no manifest, so it was never finished; dptr cache gc removes it" for path in found.unlisted]
    lines.append(f"{found.shards:,} shards, {found.bytes:,} bytes read: {_problems(len(found.problems))} found")
    if encoder and not found.problems:
        from cache.space import open_space
        from pipeline.selftest import check

        one = open_space(cache, space)
        say("loading torch and open_clip ...")
        summary["encoder"] = check(one, pretrained, device)
        cosines = ", ".join(f"{what} {cosine:.6f}" for what, cosine in summary["encoder"].items())
        lines.append(f"{one.name}: the encoder is the same; smallest cosines with the stored values: {cosines}")
    finish("\n".join(lines), summary, as_json)
    if len(found.problems) > found.repaired:  # also after a repair: labels without memories wait for embed-text
        raise typer.Exit(1)


@cache_app.command()
def push(
    cache: Annotated[Path, typer.Argument(help="Cache folder.")],
    url: Annotated[Path, typer.Argument(metavar="URL", help="Where it goes: s3://bucket/cache, hf://, ...")],
    space: SpaceName = None,
    as_json: Json = False,
) -> None:
    """Send what a cache elsewhere lacks. It only ever grows; --cache URL reads it."""
    from cache.transfer import push as prepared

    _move("push", prepared(cache, url, space), as_json)


@cache_app.command()
def pull(
    url: Annotated[Path, typer.Argument(metavar="URL", help="Where the cache is: s3://bucket/cache, hf://, ...")],
    cache: Annotated[Path, typer.Argument(help="Cache folder.")],
    space: SpaceName = None,
    as_json: Json = False,
) -> None:
    """Get what a cache folder lacks of one elsewhere, each shard compared with its checksum."""
    from cache.transfer import pull as prepared

    _move("pull", prepared(url, cache, space), as_json)


@cache_app.command()
def gc(
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    drop_corpus: Annotated[list[str] | None, typer.Option(help="Corpus to drop; repeatable.")] = None,
    drop_bank: Annotated[list[str] | None, typer.Option(help="Bank to drop; repeatable.")] = None,
    drop_crops: Annotated[list[str] | None, typer.Option(help="Word images to drop, by size, such as 32x128.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Show the memories that no corpus uses and the files that were never finished, and remove them if you confirm.

    The memories of an embed-text that was stopped have no corpus yet: finish it first.
    """
    from cache.garbage import find_garbage, remove
    from cache.lock import writing
    from cache.space import open_space

    one = open_space(cache, space)
    with writing(one.folder):
        found = find_garbage(one, drop_corpus or [], drop_bank or [], drop_crops or [])
        for folder in found.folders:
            say(f"to be dropped: {folder.relative_to(one.folder)}")
        for path in found.files:
            say(f"never finished: {path.relative_to(one.folder)}")
        say(
            f"{one.name}: {found.memories:,} of {one.memories.rows:,} memories are not used by any corpus, "
            f"{len(found.files):,} files were never finished; {found.bytes:,} bytes can be freed"
        )
        if found and not yes:
            if not sys.stdin.isatty():
                raise WrongUse("nothing was removed: add --yes to confirm.")
            typer.confirm("remove?", abort=True, err=True)
        summary = {"memories": found.memories, "files": len(found.files), "bytes": found.bytes}
        remove(found)
    finish(f"{summary['bytes']:,} bytes removed", summary, as_json)


@cache_app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    corpus: Annotated[str | None, typer.Option(help="Corpus to export.")] = None,
    bank: Annotated[str | None, typer.Option(help="Bank to export.")] = None,
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    as_json: Json = False,
) -> None:
    """Export a corpus or a bank as .npy and Parquet files for other tools."""
    from cache.export import export_bank, export_corpus
    from cache.space import space_with

    if (corpus is None) == (bank is None):
        raise WrongUse("choose what to export: give either --corpus NAME or --bank NAME.")
    one = space_with(cache, space, [corpus] if corpus else [], [bank] if bank else [], say)
    with _progress("export", None, "row") as progress:
        rows = export_corpus(one, corpus, out, progress) if corpus else export_bank(one, str(bank), out, progress)
    what = f"{rows:,} labels of corpus '{corpus}'" if corpus else f"{rows:,} pictures of bank '{bank}'"
    files = sorted(p.name for p in out.iterdir())
    finish(f"{what} written to {out}: {', '.join(files)}", {"rows": rows, "files": files}, as_json)


@cache_app.command()
def plot(
    corpus: Annotated[str, typer.Option(help="Corpus whose text rows are drawn.")],
    out: Annotated[Path, typer.Option(help="Folder for the drawings, one PNG for each perturbation.")],
    bank: Annotated[str | None, typer.Option(help="Bank whose photographs' tokens are drawn.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Word images whose tokens are drawn; repeatable.")] = None,
    perturb: Annotated[
        list[str] | None, typer.Option(help="Perturbation to draw, as in dptr pretrain; repeatable.")
    ] = None,
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    split: Split = "train",
    pretrained: Weights = None,
    as_json: Json = False,
) -> None:
    """Draw where words, photographs and word images lie in a space, before and after perturbations.

    With --bank, and after dptr neighbours, also draw the photographs nearest to a few words, and the farthest.
    """
    from cache.space import space_with
    from commands.gather import cached_tokens, labelled_sets, tower_of
    from train.perturb.neighbours_plot import NAME, draw_neighbours
    from train.perturb.plot import draw_all

    one = space_with(cache, space, [corpus], [bank] if bank else [], say)
    pictures = None
    if sets := labelled_sets(data or [], split):
        pictures = (sets, cached_tokens(one, tower_of(one, None, pretrained), sets, "cpu"))
    found = draw_all(one, corpus, bank, pictures, perturb or ["none"], out)
    lines = []
    for name, gaps in found.items():
        far = "; ".join(f"{what}: gap {g['distance']:.2f}, cosine {g['cosine']:.2f}" for what, g in gaps.items())
        lines.append(f"{out / name}  {far}")
    if bank:
        try:
            words = draw_neighbours(one, corpus, bank, out)
            lines.append(f"{out / NAME}  photographs nearest to and farthest from {', '.join(map(printable, words))}")
        except DptrError as error:
            say(f"neighbours are not drawn: {error}")
    finish("\n".join(lines), found, as_json)


def _move(what: str, transfer: "Transfer", as_json: bool) -> None:
    from cache.remote import shown

    with _progress(what, transfer.bytes, "B") as progress:
        transfer.run(progress)
    text = (
        f"{transfer.shards:,} shards, {transfer.bytes:,} bytes, now also in {shown(transfer.target.folder)}, each "
        f"compared with its checksum; {transfer.there:,} were there already"
    )
    finish(text, {"shards": transfer.shards, "bytes": transfer.bytes, "there": transfer.there}, as_json)


def _problems(count: int) -> str:
    return counted(count, "problem") if count else "no problems"


@contextmanager
def _progress(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=unit, unit_scale=True, delay=2, leave=False) as bar:
        yield bar.update
