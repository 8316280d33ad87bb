"""``python -m adapterdock`` is the command ``adapterdock``."""

from .cli.main import main

if __name__ == "__main__":
    main()
