"""The HTTP service: labelled, seed-reproducible images from ONNX generators. Never imports torch or training."""

import os

# onnxruntime reads it when it is imported; otherwise it keeps a database in the home folder and reports its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
