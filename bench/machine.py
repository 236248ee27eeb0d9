"""How the line that a bench prints begins: which bench it is, and on which processor, which decides most figures."""

import platform
import re
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")


def about(bench: str) -> dict[str, str]:
    """The first entries of a bench's line."""
    return {"bench": bench, "processor": processor()}


def processor() -> str:
    """Its name, and which it has of the instructions that decide how fast products are."""
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", said)
    flags = [flag for flag in FLAGS if re.search(rf"\b{flag}\b", said)]
    return " ".join([name[1] if name else platform.processor() or platform.machine(), *flags])
