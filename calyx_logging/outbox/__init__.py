"""The node's side after recording: recovery, export, receipts, pruning, status."""
