"""What a base's checkpoint says of its modules, torch-free. Imports facts and conversions alone."""
