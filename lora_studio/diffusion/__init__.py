"""Noise processes: how a model's noise is drawn, added, predicted, weighted and removed again."""
