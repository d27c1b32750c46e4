"""Two-stage training: batches, steps, checkpoints."""
