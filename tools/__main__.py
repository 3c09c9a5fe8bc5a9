"""`python -m tools` is `pix2live`."""

from tools.cli import main

main()
