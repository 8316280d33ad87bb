"""Methods that PEFT's own layers carry out."""
