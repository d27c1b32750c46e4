"""Ranking metrics, intervals, slices and the report."""
