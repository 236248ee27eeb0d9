"""What a run's own log says of its speed."""

import json
import statistics
from pathlib import Path


def steady(run: Path) -> dict[str, float]:
    """Medians over the later half of a run's reports: words per second, waiting, utilisation (if it was counted)."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reports = [line for line in lines if line["group"] == "train"]
    later = reports[len(reports) // 2 :]
    names = [n for n in ("words_per_second", "waiting", "utilisation") if n in later[-1]]
    return {name: round(statistics.median(line[name] for line in later if name in line), 4) for name in names}
