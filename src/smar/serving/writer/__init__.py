"""The model worker of `smar serve`: the one process that loads torch, encodes items and writes the update log."""
