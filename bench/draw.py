"""Word images drawn a second, on one core.

    python -m bench.draw [WORDS.txt] [--fonts DIR...] [--behind PHOTOS...]

As `finetune --train drawn:WORDS` draws them, with 30 % hard words, in batches of 256. Processor time, so that other
work on the machine does not count; the median of the runs, after one that loads the fonts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence

from bench.machine import about
from bench.material import some_words
from models.charset import Charset
from sources.drawn.drawn_set import Scenery, Writing, drawn_set
from sources.drawn.fonts import find_fonts, usual_folders
from sources.drawn.photographs import photographs
from train.data.crop_batches import Pictures
from train.data.crops import usable


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.draw")
    parser.add_argument("words", nargs="?")
    parser.add_argument("--fonts", nargs="*", default=[], help="folders (default: the usual ones)")
    parser.add_argument("--behind", nargs="*", default=[], help="photographs (default: none)")
    parser.add_argument("--count", type=int, default=2048, help="pictures of a run")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args(arguments)
    charset = Charset()
    writing = Writing(charset.characters, 25)
    fonts = find_fonts(asked.fonts or usual_folders(), writing.drawn)
    drawn_from = Scenery(fonts, photographs(asked.behind))
    crops = usable([drawn_set("words", some_words(asked.words, None), writing, drawn_from, 0.3)], charset, 25)
    made, rates = Pictures(crops, (32, 128)), []
    for run in range(asked.runs + 1):
        began = time.process_time()
        for batch in range(asked.count // 256):
            draw = run * asked.count + batch
            _ = made[draw, [(draw * 256 + n) * 7919 % len(crops) for n in range(256)]]
        rates.append(asked.count // 256 * 256 / (time.process_time() - began))
    result = {
        **about("draw"),
        "pictures_per_second": round(statistics.median(rates[1:]), 1),
        "with_fonts_to_load": round(rates[0], 1),
        "fonts": len(drawn_from.fonts),
        "photographs": len(drawn_from.photographs),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
