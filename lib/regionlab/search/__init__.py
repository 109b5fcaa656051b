"""Queries, scoring, engines, image and region search, relevance feedback."""
