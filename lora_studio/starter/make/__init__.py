"""How the starter was made: one script per part."""
