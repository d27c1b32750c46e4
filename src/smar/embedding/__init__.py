"""Catalogue encoding in resumable shards."""
