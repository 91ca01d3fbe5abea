"""What a right answer is, and how far from it another one lies."""
