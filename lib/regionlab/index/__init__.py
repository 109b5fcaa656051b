"""Build, update, read, verify and copy an index folder."""
