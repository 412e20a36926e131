"""Commands of the command line, one a module; `cli` gathers them."""
