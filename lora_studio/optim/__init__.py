"""Optimizers, their learning rates over a run, the buffer that they work on, and the running average."""
