"""What replicas serve, compared by content with what the lock says."""
