"""One module for each kind of head."""
