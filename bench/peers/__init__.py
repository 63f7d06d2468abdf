"""What ours is measured beside: peers, which answer the same question, and floors, which do the bare work."""
