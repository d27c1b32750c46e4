"""What every room stands on: errors, files, settings, logs, progress, processes. Imports nothing of the others."""
