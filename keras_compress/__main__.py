import sys

from keras_compress.cli import main

sys.exit(main())
