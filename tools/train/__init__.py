"""Training of new filters. Needs the extra `pix2live[torch]`; importing this imports no torch."""
