"""Generator architectures, one plain PyTorch module a file. Importing this imports no torch."""
