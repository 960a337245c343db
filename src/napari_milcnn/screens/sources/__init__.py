"""The images of a screen: where they are, and which plate, well and site each of them is."""
