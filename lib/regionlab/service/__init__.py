"""The search service: one process with one copy of the models for many people.

`python -m regionlab.service` runs it; `app.create_app` makes the application of an index.
"""
