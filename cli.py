"""The command line: `dptr COMMAND ...`, or `python cli.py COMMAND ...`.

Nothing heavy is imported before a command runs, so that --help answers at once.
"""

# ruff: noqa: E402 (a handler comes before the imports that take long)
import signal
import sys
import threading

_MAIN = threading.current_thread() is threading.main_thread()
if _MAIN:  # Ctrl-C while this imports ends the process without a traceback
    _BEFORE = signal.signal(signal.SIGINT, signal.SIG_DFL)

from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from commands.cache import cache_app
from commands.console import HELP, Commands, say, say_version
from commands.draw import draw
from commands.embed import embed_images, embed_text
from commands.neighbours import neighbours
from commands.read import evaluate, export, read
from commands.serve import serve
from commands.train import compare, finetune, pretrain
from commands.worker import worker

if _MAIN:
    signal.signal(signal.SIGINT, _BEFORE)

app = typer.Typer(cls=Commands, **HELP)
for command in (
    embed_text, embed_images, neighbours, worker, pretrain, draw, finetune, compare, evaluate, read, serve, export,
):  # fmt: skip
    app.command()(command)
app.add_typer(cache_app, name="cache")


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Embed words and photographs once; pre-train text readers many times."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's cache and run; recreated.")] = Path("demo-out"),
) -> None:
    """Run the whole chain on the words and photographs installed with dptr; takes a few minutes."""
    from commands.demo import demo as run_demo

    typer.echo(run_demo(out, say))


def main() -> None:
    """Entry point of the installed `dptr`. Whatever a terminal cannot show, such as λ in ASCII, it shows escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # while typer builds the commands; a command that runs says what it has kept
        sys.exit(130)


if __name__ == "__main__":
    main()
