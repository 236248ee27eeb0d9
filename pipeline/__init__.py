"""Makes the cache: labels, prompt, encoder, and the two embedding stages. The only room that embeds."""
