"""One backend a file; `engines.registry` loads them on demand."""
