"""Families of base models: all that is known of one is in one file."""
