"""Front door: the command line, and the few names a notebook needs."""
