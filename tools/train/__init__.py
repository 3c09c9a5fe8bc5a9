"""Training of new filters. Needs the extra `pix2live[train]`; importing this imports no torch."""
