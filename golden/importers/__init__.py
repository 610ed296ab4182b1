"""Model files to `golden.network.Network`: one module a format, heavy imports inside functions."""
