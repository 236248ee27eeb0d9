"""How the memory of embed-text grows with the corpus: bytes per additional memory.

    python -m bench.embed_memory

Embeds two corpora, the second twice as long as the first, and then embeds both again when everything is cached, which
is when the table of keys is largest. Each runs in a process of its own, whose peak resident memory is measured. The
tower has one layer, since its size does not depend on the corpus.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SHORT, LONG = 1_000_000, 2_000_000  # both long enough to fill the buffers, whose sizes are fixed
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
EMBED = """
import sys
from pathlib import Path
import open_clip
from bench.peak import peak
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
folder, count = Path(sys.argv[1]), int(sys.argv[2])
open_clip.add_model_config(folder)
encoder = Encoder("bench-tiny", "untrained:0", precision="fp32", device="cpu")
done = embed_text(folder / f"cache-{count}", encoder, collect(f"w{n}" for n in range(count)), "words", print)
assert done.labels == count
print(peak())
"""


def main() -> None:
    """Measure and print."""
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench-tiny.json").write_text(json.dumps(CONFIG))
        for state in ("new", "cached"):
            for count in (SHORT, LONG):
                command = [sys.executable, "-c", EMBED, folder, str(count)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                peaks[f"{state} {count}"] = int(done.stdout.split()[-1])
    growth = {s: (peaks[f"{s} {LONG}"] - peaks[f"{s} {SHORT}"]) / (LONG - SHORT) for s in ("new", "cached")}
    result = {
        "bench": "embed_memory",
        "bytes_a_further_memory_new": round(growth["new"], 1),
        "bytes_a_further_memory_cached": round(growth["cached"], 1),
        "goal": 32,
        "peak_megabytes": {name: round(peak / 1e6) for name, peak in peaks.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
