"""What `regionlab bench` measures."""
