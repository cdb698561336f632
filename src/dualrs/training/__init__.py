"""Training: experts, labels, the variance estimator, and all of it in one command."""
