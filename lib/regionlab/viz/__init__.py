"""Charts, image panels, maps and the notebook widgets."""
