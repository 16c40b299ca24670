"""Pretrain Zoo: text encoders from raw text to a report, as one reproducible pipeline."""

__version__ = "0.1.0"
