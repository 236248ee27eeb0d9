"""What is trained, and where it computes: charset, layers, image encoder, decoders, recogniser. Needs torch alone."""
