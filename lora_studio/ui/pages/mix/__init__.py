"""The Mix page: adapters and their weights, what they draw together, and one adapter made of them."""
