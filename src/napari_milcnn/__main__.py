"""`python -m napari_milcnn` and `accelerate launch -m napari_milcnn` are the command line."""

from napari_milcnn.cli.app import main

if __name__ == "__main__":
    main()
