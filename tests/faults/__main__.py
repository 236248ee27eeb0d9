"""The long run: `python -m tests.faults [--kills N] [--calls N] [--stride N] [--disks N] [--mutations N] ...`.

Each number is how often; 0 leaves a kind out. The last line of output is what happened, as JSON. A fault that loses
something or goes unnoticed ends the run with a traceback.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.faults import damage, job, kills, refusals, replaced, sequences, workers

MEMORY = Path("/dev/shm")  # no waiting for a disk: a killed process, unlike a machine, loses nothing unsynced on either


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="at random moments")
    parser.add_argument("--calls", type=int, default=400, help="kills at system calls, spread over the job")
    parser.add_argument("--stride", type=int, default=1, help="every so many system calls one is refused; 0: none")
    parser.add_argument("--disks", type=int, default=8192, help="bytes between the sizes of disks that are too small")
    parser.add_argument("--mutations", type=int, default=20_000, help="damaged files")
    parser.add_argument("--sequences", type=int, default=300, help="sequences of everything")
    parser.add_argument("--replaced", type=int, default=1, help="every so many system calls a replacement is disturbed")
    parser.add_argument("--workers", type=int, default=200, help="kills of workers and their driver")
    parser.add_argument(
        "--words", type=int, default=300, help="in the first corpus of a job that is killed or replaced"
    )
    asked = parser.parse_args()
    happened = {}
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        encoder = job.prepare(Path(made))
        for name, work in {
            "kills": lambda folder: kills.kills(folder, encoder, asked.kills, False, asked.words),
            "calls": lambda folder: kills.kills(folder, encoder, asked.calls, True, asked.words),
            "stride": lambda folder: refusals.refusals(folder, encoder, asked.stride),
            "disks": lambda folder: refusals.full_disks(folder, encoder, asked.disks),
            "mutations": lambda folder: damage.mutations(folder, encoder, asked.mutations),
            "sequences": lambda folder: sequences.sequences(folder, encoder, asked.sequences),
            "replaced": lambda folder: replaced.replacements(folder, encoder, asked.replaced, asked.words),
            "workers": lambda folder: workers.kills(folder, encoder, asked.workers),
        }.items():
            if getattr(asked, name):
                began = time.perf_counter()
                (Path(made) / name).mkdir()
                happened[name] = dict(work(Path(made) / name)) | {"seconds": round(time.perf_counter() - began)}
                print(name, happened[name], flush=True)
    print(json.dumps(happened))


if __name__ == "__main__":
    main()
