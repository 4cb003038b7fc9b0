"""Images through a backbone into a feature file, each image once."""
