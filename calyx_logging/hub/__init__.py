"""The hub's store: import, inventory, receipts, audit.

Invariant: every event is in the store once, and a bundle that contradicts what the store holds is refused.

The way: `importer` stages and verifies a bundle, compares it with the `inventory`, and renames it into the `store`, or
notes the refusal (`rejections`); `receipts` acknowledges what is whole, and `audit` tells what is missing.

Other wings use `Store` and `find_hub` (`store`), `holdings_of` (`inventory`), `import_one` (`importer`),
`write_receipt` (`receipts`), `refusals` (`rejections`) and `audit_node` (`audit`).
"""
