"""The HTTP service: labelled, seed-reproducible images from ONNX generators. Never imports torch or training."""
