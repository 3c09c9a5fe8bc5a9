"""`pix2live bench`: what each filter, backend, size and precision does on this machine."""
