"""From a plan and tensors to a finished adapter; imports ``methods/`` and below."""
