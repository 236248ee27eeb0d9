"""Makes the cache: sources, labels, prompt, encoder, and the two embedding stages. The only room that embeds."""
