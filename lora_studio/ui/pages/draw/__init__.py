"""The Draw page: prompt and adapters on the left, pictures on the right, each of which is kept with its recipe."""
