"""Makes the committed tables from the installed transformers; the product never imports it."""
