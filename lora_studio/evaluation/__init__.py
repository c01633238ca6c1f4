"""What is measured of an adapter while it trains: a file a measure."""
