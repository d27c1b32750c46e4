"""smar: product search that reads words and looks at pictures (SMAR, SIGIR 2023)."""

__version__ = "0.1.0"
