"""Vectors to hidden states."""
