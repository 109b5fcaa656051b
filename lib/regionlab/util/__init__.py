"""Paths, files, checks, progress and timing."""
