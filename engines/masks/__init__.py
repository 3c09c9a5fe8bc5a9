"""The networks that say where something is: frame models with an ``alpha`` output.

They are no filters: what they translate a frame into is the mask as a grey picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
PERSON: Final = FOLDER / "person.onnx"
"""Where people are; see README.md beside it."""
