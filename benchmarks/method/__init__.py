"""Whether the method does what its papers say."""
