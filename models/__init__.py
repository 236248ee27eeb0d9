"""What is trained, and the device it runs on: charset, layers, image encoder, decoders, recogniser. Only torch."""
