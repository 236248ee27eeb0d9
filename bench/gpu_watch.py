"""How busy the card is while something runs, as nvidia-smi tells it."""

import statistics
import subprocess
import tempfile
from typing import Any

COMMAND = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "250"]


class Watch:
    """A context that asks four times a second; finds nothing where there is no nvidia-smi."""

    def __enter__(self) -> "Watch":
        self._said = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(COMMAND, stdout=self._said, stderr=subprocess.DEVNULL)
        except OSError:
            self._process = None
        return self

    def __exit__(self, *_: Any) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        self._said.seek(0)
        rows = [line.split(",") for line in self._said.read().splitlines()]
        self._said.close()
        pairs = [(int(row[0]), int(row[1])) for row in rows if len(row) == 2 and row[0].strip().isdigit()]
        self._busy, self._memory = [a for a, _ in pairs if a], [b for _, b in pairs]

    def found(self) -> dict[str, float]:
        """The median share of time with a kernel running, in percent, while there were any; the most memory, in MB."""
        if not self._busy:
            return {}
        return {"gpu_busy_percent": statistics.median(self._busy), "gpu_megabytes": max(self._memory)}
