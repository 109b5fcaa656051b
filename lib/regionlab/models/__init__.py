"""Encoders and segmenters by name, their weights, and the pipeline that feeds a model."""
