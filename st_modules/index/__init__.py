"""Collections as tables of vectors: built from files, searched by words and pictures."""
