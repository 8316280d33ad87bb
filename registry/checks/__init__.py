"""The checks that decide fit, one question a file."""
