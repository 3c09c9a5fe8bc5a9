"""The parts of `pix2live evaluate`: picture metrics, feature distances, flicker, and the table."""
