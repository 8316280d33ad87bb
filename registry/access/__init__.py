"""How the sources of a manifest are reached: policies, pins, registries; imports all other
sub-rooms."""
