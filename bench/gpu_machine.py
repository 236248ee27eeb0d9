"""What the card is, and how fast: names, versions, the rates of products and copies."""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

import torch

from bench.machine import about
from models.device import choose_device, product_rate


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.gpu_machine")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each rate")
    asked = parser.parse_args(arguments)
    device = choose_device(asked.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    found = {**about("gpu_machine"), "card": card, "cores": os.cpu_count(), "torch": torch.__version__}
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda, "gigabytes": round(torch.cuda.mem_get_info(device)[1] / 1e9)}
        command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        with suppress(OSError, subprocess.TimeoutExpired):
            found["driver"] = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    print(json.dumps(found), flush=True)
    rates = {
        f"{name}_tflops": round(product_rate(device, dtype, asked.seconds) / 1e12, 3)
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
        if device.type == "cuda" or name == "fp32"
    }
    rows = torch.empty((1 << 28) if device.type == "cuda" else (1 << 20), dtype=torch.uint8)
    began = time.perf_counter()
    for _ in range(4):
        rows.to(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    rates["upload_gb_per_second"] = round(4 * rows.numel() / (time.perf_counter() - began) / 1e9, 2)
    print(json.dumps({**found, **rates}))


if __name__ == "__main__":
    main()
