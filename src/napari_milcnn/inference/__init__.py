"""A model applied to images: scores, class maps, evidence, masks, cells."""
