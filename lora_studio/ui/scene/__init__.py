"""What the pages Draw and Mix draw with: adapters with their weights, and the base model with how it is read."""
