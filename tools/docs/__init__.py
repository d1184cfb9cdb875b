"""What the documentation has from the code: `python -m tools.docs` writes it, `--check` tells what is not current.

planes      the chains of each mode's plane as a diagram, and the way of packets through them
reference   the command line and the configuration types
pages       blocks between marks in docs/, and whole pages under docs/reference/
"""
