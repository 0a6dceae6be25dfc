"""The command line as `python -m driftline`."""

from driftline.cli.main import main

if __name__ == "__main__":
    main()
