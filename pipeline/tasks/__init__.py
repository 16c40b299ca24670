"""Kinds of downstream tasks."""
