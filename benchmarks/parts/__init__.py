"""What several benchmarks share, and the parts of the large ones."""
