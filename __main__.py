"""``python -m adapterdock`` is the command ``adapterdock``."""

from .cli.start import main

if __name__ == "__main__":
    main()
