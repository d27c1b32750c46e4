"""The model: towers, fusion, gate, and everything saved with them."""
