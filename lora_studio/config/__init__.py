"""What a run can be told: its settings, presets of them, and their table in the docs."""
