"""The quantizers that ship with Napier: one file, one `METHOD`."""
