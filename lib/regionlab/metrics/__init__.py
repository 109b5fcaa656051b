"""Ranking metrics, relevance, intervals and paired tests, probe, projection."""
