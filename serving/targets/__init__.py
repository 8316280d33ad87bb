"""What an engine of one version can serve; pure tables and checks, no engine needed."""
