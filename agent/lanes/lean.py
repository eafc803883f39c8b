"""What a worker does without. To be imported before anything that might bring it in.

OpenSSL is 3.5 MB of the worker's memory, read in by `hmac` for whoever wants `secrets`. A worker
keeps none, and Python's own digests serve where one is needed.
"""

from __future__ import annotations

import sys

# A module that is None raises ImportError (the import system's documented sign for "not there").
sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type]
