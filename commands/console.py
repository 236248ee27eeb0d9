"""How the commands speak: lines for a person, results, and errors in one sentence with an exit code."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cache.errors import DptrError

if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "10")  # a log file wants a line now and then, not ten a second
FIRST = os.environ.get("RANK", "0") == "0"  # as torchrun numbers the processes it starts


class Commands(TyperGroup):
    """Turns what a user can cause into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DptrError as error:
            raise _exit(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise _exit("stopped; what was committed before is kept", 130) from error
        except BrokenPipeError:
            raise  # `dptr ... | head` is no failure
        except OSError as error:
            raise _exit(f"{error.filename or 'the system'}: {error.strerror or error}", 1) from error


def _exit(message: str, code: int) -> typer.Exit:
    typer.secho(f"error: {message}", fg="red", err=True)
    return typer.Exit(code)


def say(text: str) -> None:
    """A line for a person; programs read stdout. Of several ranks the first speaks."""
    if FIRST:
        typer.echo(text, err=True)


def finish(text: str, summary: Any, as_json: bool) -> None:
    """The result of a command, for a person or for a program."""
    if FIRST:
        typer.echo(json.dumps(summary, indent=2) if as_json else text)


HELP: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
CacheDir = Annotated[Path, typer.Option("--cache", envvar="DPTR_CACHE", help="Folder of the cache.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto is the GPU if there is one.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16; auto is bf16 where the hardware has it.")]
Split = Annotated[str, typer.Option(help="Split of a dataset.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Resume = Annotated[str, typer.Option(help="auto: go on with the run in --out, if any; never; or a run or checkpoint.")]
SpaceName = Annotated[str | None, typer.Option("--space", help="Space, if there are several: how its name begins.")]
Weights = Annotated[
    str | None, typer.Option(help="Where the encoder's weights lie, if not where the space found them.")
]
RunCache = Annotated[Path | None, typer.Option(help="Cache, if it is no longer where the run found it.")]

DEFAULT_CACHE = Path("dptr-cache")
