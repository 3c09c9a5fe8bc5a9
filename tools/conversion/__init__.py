"""From anybody's weights to a proven engine, step by step; `pix2live convert` is the command."""
