"""Objectives of pre-training."""
