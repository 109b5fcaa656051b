"""Composed retrieval: composers, training, the protocols of CIRR and FashionIQ."""
