"""Comparisons and reports: what a model or a run is worth."""
