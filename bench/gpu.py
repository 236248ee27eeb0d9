"""Everything that needs a GPU, on one card in eight minutes: `make gpu`, or `python -m bench.gpu`.

    python -m bench.gpu [--out gpu.json] [--only PART...]
    python -m bench.gpu --table gpu.json      # the results as a table
    python -m bench.gpu --tiny                # a rehearsal with tiny sizes, on whatever machine

Each part runs in a process of its own, with a limit of its own, and a part that fails or takes too long does not keep
the others from running. The results file is written anew after each part: a part's lines of JSON, or how it failed.

Parts are forked from this process, so that torch is imported once. So nothing here may touch the GPU. Should a card not
like that, parts are started afresh instead.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.gpu_table import table
from bench.gpu_watch import Watch

TOTAL = 470  # seconds for all parts
LATE = ("faiss", "matplotlib.pyplot", "torch.utils.tensorboard", "train.data.augment")  # imported when first needed
CONFIG = {  # of the rehearsal's model
    "embed_dim": 64,
    "vision_cfg": {"image_size": 80, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Part:
    """A module whose main(arguments) prints lines of JSON."""

    name: str
    limit: float  # seconds
    arguments: str = ""
    tiny: str = ""  # arguments of the rehearsal

    @property
    def module(self) -> str:
        return f"bench.{self.name}"


MODEL = "--model tiny untrained:0"
PARTS = (
    Part("gpu_machine", 60, "", "--seconds 0.02"),
    Part(
        "pretrain_step", 200, "--runs 1",
        f"--runs 1 --count 100 --batch 8 --steps 4 --depths 1 --precision fp32 {MODEL}",
    ),
    Part(
        "encode_text", 45, "--brief --runs 1 --count 100000 --precision bf16",
        f"--brief --runs 1 --count 100 --usual 16 --precision fp32 {MODEL}",
    ),
    Part(
        "encode_images", 45, "--runs 1 --count 2048 --precision bf16",
        f"--runs 1 --count 6 --usual 4 --workers 0 --precision fp32 {MODEL}",
    ),
    Part("gpu_tests", 160, "", "--collect"),
    Part("finetune_step", 75, "--steps 60", f"--count 12 --batch 4 --steps 2 --workers 0 --size 16x32 {MODEL}"),
    Part("stream_step", 40, "", f"--count 100 --batch 8 --steps 4 {MODEL}"),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit code is the number of parts that failed."""
    parser = argparse.ArgumentParser("bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="results (default: gpu.json)")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="run only these parts")
    parser.add_argument("--seconds", type=float, default=TOTAL, help=f"for all parts (default: {TOTAL})")
    parser.add_argument("--tiny", action="store_true", help="rehearse with tiny sizes")
    parser.add_argument("--fresh", action="store_true", help="start each part as a fresh process instead of forking")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the results in FILE as a table, and end")
    asked = parser.parse_args(arguments)
    if asked.table:
        print(table(json.loads(asked.table.read_text())))
        return 0
    began, fresh = time.monotonic(), asked.fresh
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking whether there is a GPU must not touch it
    parts = [part for part in PARTS if not asked.only or part.name in asked.only]
    results: dict[str, Any] = {"tiny": asked.tiny, "python": platform.python_version(), "parts": {}}
    if not fresh:
        _prepare(parts)
    for part in parts:
        left = asked.seconds - (time.monotonic() - began)
        given = (part.tiny if asked.tiny else part.arguments).split()
        result = _run(part, given, min(part.limit, left), fresh) if left > 5 else {"error": "no time was left"}
        if not fresh and not asked.tiny and _blind(result):
            fresh = True
            result = _run(part, given, min(part.limit, asked.seconds - (time.monotonic() - began)), fresh)
        results["parts"][part.name] = result
        results["seconds"] = round(time.monotonic() - began, 1)
        asked.out.write_text(json.dumps(results, indent=1) + "\n")
        ended = f"FAILED: {result['error']}" if "error" in result else f"done in {result['seconds']} s"
        print(f"{part.name}: {ended}", flush=True)
    print(table(results))
    return sum("error" in result for result in results["parts"].values())


def _blind(result: dict[str, Any]) -> bool:
    """Whether a part could not use the card because this process had touched it before it forked."""
    unseen = bool(shutil.which("nvidia-smi")) and any(line.get("card") == "none" for line in result.get("lines", []))
    return unseen or any(text in result.get("error", "") for text in ("forked subprocess", "initialization error"))


def _prepare(parts: Sequence[Part]) -> None:
    """Import what the parts need, once for all, and let open_clip know the model called tiny."""
    for module in (*(part.module for part in parts), *LATE):
        try:
            import_module(module)
        except Exception:  # the parts that need it will fail, with this error
            traceback.print_exc()
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny.json").write_text(json.dumps(CONFIG))
        open_clip.add_model_config(folder)


def _run(part: Part, arguments: list[str], limit: float, fresh: bool) -> dict[str, Any]:
    """The lines that a part printed, its seconds and, if it failed, the end of what it wrote to stderr."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        child = os.fork()
        if child == 0:
            _child(part, arguments, out, err, folder, fresh)
        with Watch() as watch:
            code = _wait(child, began + limit)
        lines = [_parsed(line) for line in out.read_text(errors="replace").splitlines()] if out.exists() else []
        wrong = err.read_text(errors="replace") if err.exists() else ""
    result: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), **watch.found()}
    result["lines"] = [line for line in lines if line]
    if code is None:
        result["error"] = f"took more than {limit:.0f} s; the last it said: {_end(wrong)}"
    elif code:
        result["error"] = _end(wrong)
    elif wrong.strip():
        result["said"] = _end(wrong)
    return result


def _child(part: Part, arguments: list[str], out: Path, err: Path, folder: str, fresh: bool) -> None:
    """The part's own process: never returns."""
    code = 1
    try:
        os.setsid()
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ.update(TMPDIR=folder, TQDM_DISABLE="1")
        tempfile.tempdir = None
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", part.module, *arguments])
        import_module(part.module).main(arguments)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, deadline: float) -> int | None:
    """The exit code of a process, None if it had to be killed; nothing that it started is left."""
    code: int | None = None
    try:
        while code is None and time.monotonic() < deadline:
            time.sleep(0.05)
            ended, status = os.waitpid(child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
    finally:  # also when this process is interrupted
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if code is None:
            os.waitpid(child, 0)
    return code


def _parsed(line: str) -> Any:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _end(text: str, lines: int = 12) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])[-3000:]


if __name__ == "__main__":
    sys.exit(main())
