"""Several adapters combined into one, from their factors; imports ``build/`` and below.

Definitions: PEFT 0.21.2, ``tuners/lora/model.py`` (``add_weighted_adapter``) and
``utils/merge_utils.py``.
"""
