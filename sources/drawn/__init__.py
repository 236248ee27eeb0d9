"""Word images that are drawn: which words, in which fonts, before which photographs. Needs no torch."""
