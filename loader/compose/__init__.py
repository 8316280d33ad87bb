"""Combining adapters: pure functions over their factors, and what makes an adapter of the result.

Definitions: PEFT 0.21.2, ``tuners/lora/model.py`` (``add_weighted_adapter``) and
``utils/merge_utils.py``.
"""
