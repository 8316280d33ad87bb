"""What is known of a base, and how it is to be loaded, before any weight is read."""
