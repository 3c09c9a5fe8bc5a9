"""CUDA's errors in words."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of what a library says, which is enough for a person."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_words(message: str) -> str:
    """Return what a person can do about a CUDA error such as ``cuMemAlloc failed: ...``."""
    said = (message.strip().splitlines() or ["no reason given"])[0]
    plain = said.replace("_", " ").lower()  # cuda-bindings: CUDA_ERROR_OUT_OF_MEMORY
    if "out of memory" in plain:
        return (
            f"the GPU has not enough free memory ({said}): take a smaller size, or close other"
            " programs that use it"
        )
    if any(word in plain for word in ("launch failed", "launch failure", "illegal", "misaligned")):
        return f"the GPU failed while it computed ({said}): start pix2live again"
    return f"CUDA failed: {said}"
