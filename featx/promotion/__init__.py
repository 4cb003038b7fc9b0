"""A head moved onto its backbone, fine-tuned, and kept if that pays."""
