"""The only room that fills the cache: words (embed_text), photographs (embed_images), word images (embed_crops)."""
