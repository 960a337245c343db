"""What the Results dock shows of wells: plates, wells that are alike, and their labels."""
