"""What serves a manifest: targets, followed sets, vLLM's plugin, the app, fleets, exports."""
