"""The bytes of one safetensors file, and where each tensor goes; imports no other sub-room."""
