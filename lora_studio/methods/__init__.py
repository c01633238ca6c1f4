"""Training methods: a file each, a row each in ``registry``. Nothing here imports torch or peft before it is needed;
only modules that end in ``_layer`` do: they hold layers that a method does not take from peft.
"""
