"""Training of small GANs and export of their generators to ONNX."""

import os

# As in service: onnxruntime would keep a database in the home folder and report its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
