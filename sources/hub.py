"""`datasets.load_dataset`, with its many kinds of failure reduced to one sentence."""

import logging
import sys
from pathlib import Path
from typing import Any

from cache.errors import WrongUse
from sources.files import files_below
from sources.parquet import check_parquet


def load_dataset(name: str, split: str, streaming: bool = True) -> Any:
    """A dataset by name or folder, streamed or with random access; `name:configuration` chooses a configuration.

    Raises WrongUse if no dataset of that name can be loaded, DptrError for a Parquet file that would fill the memory.
    """
    for file in _parquet(Path(name)):
        check_parquet(file)
    print(f"looking for a dataset called '{name}' ...", file=sys.stderr)  # offline, it takes half a minute to fail
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    path, _, configuration = name.partition(":")
    try:
        if path.endswith(".parquet"):
            return datasets.load_dataset("parquet", data_files={split: path}, split=split, streaming=streaming)
        return datasets.load_dataset(path, configuration or None, split=split, streaming=streaming)
    except Exception as error:  # the library raises a dozen kinds of error, from HTTP to YAML
        first_line = str(error).strip().split("\n")[0]
        known = "dptr does not know the kind of" if Path(path).exists() else "there is no file or folder"
        raise WrongUse(f"{known} '{name}', and `datasets` cannot load it (split '{split}'): {first_line}") from error


def _parquet(path: Path) -> list[Path]:
    files = files_below(path) if path.is_dir() else [path] * path.is_file()
    return [file for file in files if file.suffix == ".parquet"]
