"""xent."""
