"""Apply a model to images: scores, class maps, evidence, masks, cells."""
