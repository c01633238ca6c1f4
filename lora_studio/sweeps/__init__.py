"""Studies over settings: what is varied, which trials there are, and what they found. Optuna chooses and keeps them."""
