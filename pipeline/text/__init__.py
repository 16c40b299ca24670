"""Corpora, tokenizers, vocabularies, shards and orders; no torch."""
