"""What `images.ome_zarr` is built from."""
