"""What lies between nodes: memory channels, and the faults of links."""
