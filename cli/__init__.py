"""The command line: arguments, output and exit statuses; no rules of its own."""
