"""Whether a model is right on images that another microscope made, and says so where it cannot know."""
