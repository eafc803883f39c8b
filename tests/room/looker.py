"""A worker that sees what a file says: python looker.py FOLDER

FOLDER/<kind> holds a word: `good`, `black`, or a fault such as `no_answer`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

BLACK = {"luma_mean": 1.0, "luma_spread": 0.0, "edge_contrast": 0.0}


def main() -> None:
    folder = Path(sys.argv[1])
    hello = {"proto": 1, "version": "0.1.0", "pid": os.getpid(), "confined": []}
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        word = (folder / question["kind"]).read_text().strip()
        good = word in ("good", "black") or question["ask"] == "prepare"
        answer = {
            "id": question["id"],
            "fault": None if good else word,
            "why": "",
            "values": BLACK if word == "black" else {},
            "took_s": 0.0,
            "active": True,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
