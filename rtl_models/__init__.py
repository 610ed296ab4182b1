"""The accelerator in Verilog, and the bridge from Python to it."""
