"""One base and its set of adapters, changed all at once or not at all; imports all above it."""
