"""The hub's store: import, inventory, receipts, audit."""
