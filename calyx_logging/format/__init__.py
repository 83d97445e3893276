"""What node and hub agree on: chunks, manifests, receipts, and the rules by which they are complete."""
