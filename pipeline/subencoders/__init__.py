"""Characters of a word to one vector."""
