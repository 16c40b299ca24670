"""Ways to look into a trained model."""
