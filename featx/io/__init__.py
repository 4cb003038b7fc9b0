"""Files read and written safely: atomic writes, strict JSON, the container of heads and models."""
