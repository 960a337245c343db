"""What is made of the tables of a screen: quality control, the page, galleries, masks, the description of files."""
