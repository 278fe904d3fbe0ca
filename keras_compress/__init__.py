"""BERT compression, paper by paper, in Keras. Importing the package does not import TensorFlow."""

import os
import sys

if "tensorflow" not in sys.modules:  # else backend.py tells what to do
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_KERAS="1")

__version__ = "0.1.0"
