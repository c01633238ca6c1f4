"""Training methods: a file each, a row each in ``registry``. Nothing here imports torch or peft before it is needed."""
