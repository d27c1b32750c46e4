"""Losses as pure functions of embeddings and masks."""
