"""What commands print: progress for people, results, and errors of one sentence with an exit code."""

import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from cache import __version__
from cache.errors import DptrError
from commands.config import Config, without_overridden
from train.options import DATA, MACHINE, MODEL, PANELS

if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "10")  # a log file needs a line now and then, not ten a second


class Commands(TyperGroup):
    """Turns errors that a user can cause into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DptrError as error:
            raise _exit(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise _exit("stopped; everything committed so far is kept", 130) from error
        except BrokenPipeError:
            raise  # `dptr ... | head` is not a failure
        except OSError as error:
            raise _exit(f"{error.filename or 'the system'}: {error.strerror or error}", 1) from error


def _first() -> bool:
    """Whether this is the first of the ranks, as torchrun numbers the processes it starts."""
    return os.environ.get("RANK", "0") == "0"


def _exit(message: str, code: int) -> typer.Exit:
    typer.secho(f"error: {_lines(message)}", fg="red", err=True)
    return typer.Exit(code)


def _lines(text: str) -> str:
    """The text as a terminal may have it: no name of a file or a label in it can control one."""
    from cache.report import printable

    return "\n".join(map(printable, text.split("\n")))


def say(text: str) -> None:
    """Print a line for people on stderr; stdout is for programs. Of several ranks, only the first prints."""
    if _first():
        typer.echo(_lines(text), err=True)


def say_version(asked: bool) -> None:
    """`dptr --version`."""
    if asked:
        typer.echo(f"dptr {__version__}")
        raise typer.Exit


def finish(text: str, summary: Any, as_json: bool) -> None:
    """Print the result of a command, as text or as JSON."""
    if _first():
        typer.echo(json.dumps(summary, indent=2) if as_json else _lines(text))


def command(options: type[Any], run: Callable[..., None]) -> Callable[..., None]:
    """A command whose options are the fields of a dataclass, in panels; `--config` reads them from a file.

    `run` gets the dataclass as its first argument; its other parameters become further options. The command takes its
    name, without the underscore, and its docstring from `run`.
    """
    declared = sorted((f for f in fields(options) if f.metadata), key=lambda f: PANELS.index(f.metadata["panel"]))
    hints = get_type_hints(options)
    own = [_parameter(field, hints[field.name]) for field in declared]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config)
    others = [p.replace(kind=p.KEYWORD_ONLY) for p in list(inspect.signature(run).parameters.values())[1:]]

    def called(context: typer.Context, config: None, **given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in declared}
        run(options(**without_overridden(context, declared, own)), **given)

    called.__name__, called.__doc__ = run.__name__.lstrip("_"), run.__doc__
    called.__signature__ = inspect.Signature([context, *own, config, *others])  # type: ignore[attr-defined]
    return called


def _parameter(field: "Field[Any]", kind: Any) -> inspect.Parameter:
    told, name = field.metadata, field.name.replace("_", "-")
    flag = told["flag"] or (f"--{name}/--no-{name}" if kind is bool else f"--{name}")
    option = typer.Option(flag, help=told["help"], rich_help_panel=told["panel"], envvar=told["env"])
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    given = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=Annotated[kind, option]
    )


HELP: dict[str, Any] = {"no_args_is_help": True, "pretty_exceptions_enable": False}
CacheDir = Annotated[
    Path, typer.Option("--cache", envvar="DPTR_CACHE", help="Cache: a folder or, to read, a URL.", rich_help_panel=DATA)
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:N, or auto: the GPU if there is one.", rich_help_panel=MACHINE)
]
Precision = Annotated[
    str,
    typer.Option(
        help="fp32, bf16, or auto: that of the cache's space for the encoder, else the faster one here.",
        rich_help_panel=MACHINE,
    ),
]
Split = Annotated[str, typer.Option(help="Dataset split.", rich_help_panel=DATA)]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
SpaceName = Annotated[
    str | None,
    typer.Option("--space", help="Space, if the cache has several: its name or the start of it.", rich_help_panel=DATA),
]
Weights = Annotated[
    str | None,
    typer.Option(help="The encoder's weights, if they have moved since the space was made.", rich_help_panel=MODEL),
]
RunCache = Annotated[
    Path | None,
    typer.Option(help="Cache folder or URL, if it has moved since the run was trained.", rich_help_panel=DATA),
]

DEFAULT_CACHE = Path("dptr-cache")
