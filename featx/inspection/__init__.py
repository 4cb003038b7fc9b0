"""What files are, and whether they are sound."""
