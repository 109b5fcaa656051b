"""What several notebooks share: sampling, methods, ratings, the papers' claims."""
