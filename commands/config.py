"""`--config FILE`: reads options from a file; those on the command line override them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import Field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import WrongUse
from train.options import FIRST


def read_config(path: Path, known: Mapping[str, bool]) -> dict[str, Any]:
    """The options in a run's config.json, or in JSON or YAML whose keys are options, written with `-` or `_`.

    `known` tells for each option whether it takes a list. Raises WrongUse if the file cannot be read, or if it holds a
    key that is not an option, naming the nearest one.
    """
    values = _run_options(_parsed(path))
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else "dptr COMMAND --help lists them."
            raise WrongUse(f"{path}: there is no option '{key}': {hint}")
        if isinstance(value, dict) or (isinstance(value, list) and not known[name]):
            raise WrongUse(f"{path}: '{key}' takes one value.")
        if value is not None:
            found[name] = value if isinstance(value, list) or not known[name] else [value]
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.safe_load(text)
    except OSError as error:
        raise WrongUse(f"the configuration {path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # JSON's, YAML's and Unicode's errors mean the same to the user
        raise WrongUse(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise WrongUse(f"{path} holds no options: write one per line, such as 'epochs: 5'.")
    return values


def _run_options(values: dict[str, Any]) -> Mapping[str, Any]:
    if "versions" not in values and "options" not in values:
        return values
    from train.run_config import options_of  # takes a second: it imports all models

    return options_of(values)


def _apply(context: typer.Context, path: Path | None) -> None:
    """Make the file's options the defaults of this call."""
    if path:
        own = {"config", "as_json"}
        known = {p.name: bool(getattr(p, "multiple", False)) for p in context.command.params if p.name not in own}
        context.default_map = read_config(path, {name: many for name, many in known.items() if name})


def without_overridden(
    context: typer.Context, declared: "Sequence[Field[Any]]", values: Mapping[str, Any]
) -> dict[str, Any]:
    """The values, less those of the file whose alternative the command line gives: --epochs overrides its steps."""
    found = dict(values)
    for field in declared:
        pair = field.name, field.metadata["instead"]
        for name, other in (pair, pair[::-1]):
            if (
                field.metadata["instead"]
                and _given(context, name) == "COMMANDLINE"
                and _given(context, other) == "DEFAULT_MAP"
            ):
                found.pop(other)
    return found


def _given(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source else ""


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_apply,
        is_eager=True,
        rich_help_panel=FIRST,
        help="Read options from a run's config.json or a YAML file; the command line overrides it.",
    ),
]
