"""quorum: weights in thousandths, signed acks, and the epochs in which an owner names who counts and for how much."""
