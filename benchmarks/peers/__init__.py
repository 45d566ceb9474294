"""Other ways to serve the same ONNX file, each as its own documentation sets it up."""
