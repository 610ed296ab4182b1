"""Quantizers: from real weights and activations to the integers an array computes with."""
