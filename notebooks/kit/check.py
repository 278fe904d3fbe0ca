"""Your own score of the visible checks: python check.py 01_bert_of_theseus.ipynb"""

import sys
from pathlib import Path

from notebooks.grade import main

if len(sys.argv) != 2:
    sys.exit(__doc__)
sys.exit(main([Path(sys.argv[1]).name[:2], sys.argv[1], "--visible"]))
