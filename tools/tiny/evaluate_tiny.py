"""Print the scores of the embedded model, or of another folder with such a model.

python tools/tiny/evaluate_tiny.py [folder]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tiny_scores import Evaluation, table

from st_modules.model import SentenceTransformer


def main() -> None:
    """Load, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a saved model; the package's own where it is left out")
    parser.add_argument("--queries", type=int, default=400, help="how many queries each score is made of")
    arguments = parser.parse_args()
    model = SentenceTransformer("tiny", weights=arguments.folder)
    print(table(Evaluation(model, arguments.queries).scores()))


if __name__ == "__main__":
    main()
