"""What people type: the `pix2live` command."""
