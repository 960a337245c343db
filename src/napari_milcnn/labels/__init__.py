"""Image-level labels: tables of them, labelling by hand, splits, checks, and what to label next."""
