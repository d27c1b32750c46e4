"""smar: product search that reads words and looks at pictures (SMAR, SIGIR 2023)."""

import os

__version__ = "0.1.0"

# onnxruntime would send figures of its sessions to its maker, and keep a number of this machine in the home folder
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
