"""Noise processes: what a model is trained to predict, and how that is drawn, weighed and undone."""
