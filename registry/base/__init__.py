"""What is known of a base and how it is loaded, torch-free; imports ``files/`` and the facts."""
