"""The search service and its page: one copy of the models for many users."""
