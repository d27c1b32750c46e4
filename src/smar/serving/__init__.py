"""The online service: HTTP API and search page over an index; needs neither torch nor transformers."""
