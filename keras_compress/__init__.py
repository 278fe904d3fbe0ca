"""BERT compression, paper by paper, in Keras. Importing the package does not import TensorFlow."""

__version__ = "0.1.0"
