"""Training: of the shipped base model, and of adapters on it."""
