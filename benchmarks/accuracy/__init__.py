"""How often a trained model is right, on images that took no part in its training."""
