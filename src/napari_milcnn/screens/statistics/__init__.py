"""What the scores of wells mean: controls, plate effects, hits, replicates and doses."""
