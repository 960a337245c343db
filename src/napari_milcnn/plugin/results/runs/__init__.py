"""The forms of the Results dock that start a long run: "Evaluate a model" and "Whole screen"."""
