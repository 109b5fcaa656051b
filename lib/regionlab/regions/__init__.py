"""Region encodings, patch-token pooling and text grounding."""
