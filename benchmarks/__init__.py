"""One script a claim; each prints ratios that were taken in one run."""
