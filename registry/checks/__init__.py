"""The checks that decide fit, one question a file; imports all sub-rooms but ``sources/``."""
