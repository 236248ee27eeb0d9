"""PP-OCR's small recogniser, which people use today, from `rapidocr`: a wheel that brings the model.

It is needed for nothing else: pip install rapidocr, or pip install --target DIR rapidocr and PYTHONPATH=DIR.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def recogniser() -> Any:
    """The recogniser alone, on one thread; None, with a sentence, if rapidocr is not installed."""
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        print(f"rapidocr is left out ({error}): pip install rapidocr, or see bench/rapid.py")
        return None
    engine = {f"EngineConfig.onnxruntime.{name}_op_num_threads": 1 for name in ("intra", "inter")}
    whole = RapidOCR(params={**engine, "Global.log_level": "error"})
    found = whole._load_rec_model()  # which has no public name
    print(f"rapidocr {version('rapidocr')}: {Path(found.cfg.model_path or '').name}")
    return found


def read(reader: Any, crop: NDArray[np.uint8]) -> str:
    """The text of a picture (H, W, 3) uint8, RGB."""
    from rapidocr.ch_ppocr_rec import TextRecInput

    return str(reader(TextRecInput(np.ascontiguousarray(crop[..., ::-1]))).txts[0])  # BGR, as it expects
