"""The feature file and the folder of feature files."""
