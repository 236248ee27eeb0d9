"""Makes the cache, and alone embeds: words (embed_text), photographs (embed_images), word images (embed_crops)."""
