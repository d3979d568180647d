"""`python -m gtool` is the same program as `gtool`."""

from gtool.cli import main

if __name__ == "__main__":
    main()
