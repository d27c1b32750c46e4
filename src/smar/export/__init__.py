"""Parts of a trained model for runtimes without torch."""
