"""What is on disk: fingerprints, shards, manifests, memories, corpora, banks. Imports neither torch nor open_clip.

CACHE/<space>/
    space.json                  the fingerprint of the encoder, field by field
    constants/                  manifest.jsonl  00000.h5: common prefix, text projection, self-test
    memories/                   manifest.jsonl  00000.h5 ...
    corpora/<name>/             manifest.jsonl  00000.h5 ...
    banks/<name>/               manifest.jsonl  00000.h5 ...  index.faiss  skipped.json
    neighbours/<bank>/          manifest.jsonl  00000.h5 ...: the nearest and farthest photographs of memories
    crops/<H>x<W>/              manifest.jsonl  00000.h5 ...  skipped.json: tokens of word images
"""

__version__ = "0.1.0"
