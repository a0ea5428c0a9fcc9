"""What the structure of an image file says that decoding it costs: read from its headers, before Pillow sees it."""
