"""The files that commands read and write: records, vectors, lines, locks."""
