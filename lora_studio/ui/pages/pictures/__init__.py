"""The Pictures page: what the model will see, and its captions."""
