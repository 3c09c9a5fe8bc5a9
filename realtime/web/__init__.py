"""The page that `pix2live serve` shows, and the server behind it."""
