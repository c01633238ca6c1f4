"""The settings of a run, presets of them, and their table in the docs."""
