"""Training of small GANs and export of their generators to ONNX."""
