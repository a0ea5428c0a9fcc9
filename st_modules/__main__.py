"""``python -m st_modules`` is ``st-modules``, for environments whose scripts are not on the path."""

from st_modules.cli import app

if __name__ == "__main__":
    app()
