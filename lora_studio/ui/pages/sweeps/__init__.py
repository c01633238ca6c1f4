"""The Sweeps page: many settings tried in short runs, and what was found."""
