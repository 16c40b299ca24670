"""Learning, for pre-training and fine-tuning alike."""
