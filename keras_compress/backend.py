"""The one place where TensorFlow and Keras are imported, so that the Keras version is chosen once.

TF-MOT and bert4keras need Keras 2 (tf-keras). Two environment variables select it and must be set
before TensorFlow is first imported; the package sets them when it is imported. Everywhere else:

    from keras_compress.backend import keras, tf
"""

import gc
import os
import sys

if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError(
        "TensorFlow was imported before keras_compress, so Keras 3 may already be in use. "
        "Import keras_compress.backend first, or set TF_USE_LEGACY_KERAS=1 and TF_KERAS=1 before Python starts."
    )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import bert4keras.backend  # noqa: E402, F401         before TF-MOT, which would give it Keras 3
import tensorflow as tf  # noqa: E402
import tf_keras as keras  # noqa: E402

tf.get_logger().setLevel("ERROR")
gc.freeze()  # what the imports made is here to stay: the collector need not walk over it each time
keras.backend.experimental.enable_tf_random_generator()  # dropout state becomes variables: checkpoints hold it

__all__ = ["keras", "tf"]
