"""One page of what ran where, what failed and what is missing."""
