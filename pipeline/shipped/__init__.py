"""The encoder that comes with dptr: an open_clip configuration, its weights, and its image tower."""
