"""`dptr neighbours CORPUS BANK`: which photographs are nearest to each word, and which farthest."""

from dataclasses import asdict
from typing import Annotated

import typer

from commands.console import DEFAULT_CACHE, CacheDir, Json, SpaceName, finish, say
from commands.worker import On, elsewhere


def neighbours(
    corpus: Annotated[str, typer.Argument(help="Corpus whose memories are compared.")],
    bank: Annotated[str, typer.Argument(help="Bank of photographs, with its index.")],
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Photographs kept on each side; 32, or as many as the table has.")
    ] = None,
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    on: On = None,
    as_json: Json = False,
) -> None:
    """Find the photographs nearest to and farthest from each word, for `--perturb nearest` and `far`."""
    from cache.space import space_with
    from pipeline.neighbours import neighbours as find

    done = find(space_with(cache, space, [corpus], [bank], say), corpus, bank, k, say, elsewhere(on, "auto"))
    text = (
        f"bank '{bank}': {done.new:,} memories compared in {done.seconds:.1f} s, "
        f"{done.memories - done.new:,} had been before; {done.k} nearest and farthest photographs each"
    )
    finish(text, asdict(done), as_json)
