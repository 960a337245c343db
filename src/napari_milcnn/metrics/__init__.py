"""How good scores are, from scores and labels alone."""
