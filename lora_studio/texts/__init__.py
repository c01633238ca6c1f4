"""Texts as text encoders read them: prompts with their weights, tokens, and chunks of them. Needs no torch."""
