"""How long things take, how much memory they need, and whether the window answers meanwhile."""
