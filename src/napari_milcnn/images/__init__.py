"""Open images of any kind lazily, one plane or window at a time; name, measure and write them."""
