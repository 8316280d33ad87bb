"""The plugin of vLLM; imports neither torch nor the loader."""
