"""From an item and its instruction to segments, and from those to token ids."""
