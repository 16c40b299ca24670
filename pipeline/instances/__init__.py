"""Corpus layouts to rows of ids."""
