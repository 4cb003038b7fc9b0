"""Which backbone, which layer, and how far to tune."""
