"""Scripts that measure: accuracy, speed, and whether two versions compute the same numbers."""
