"""Images in: sources, splits, decoding, transforms and the loader."""
