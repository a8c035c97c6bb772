"""One image file to pixels: formats, modes, decoding, resolution, fingerprints."""
