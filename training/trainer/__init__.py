"""One training run: what is drawn at random, the update, checks, validation, checkpoints, and the loop over them."""
