"""Makes committed tables from the sources of engines; nothing imports it."""
