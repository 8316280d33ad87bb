"""The HTTP app that serves any method from one loaded model, and what runs it."""
