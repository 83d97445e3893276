"""The node's side after recording: recovery, export, receipts, pruning, status.

Invariant: no chunk is deleted that a hub's receipt does not cover, and a bundle has its name only when it is whole.

The way: `contents` lists the chunks and seals those of dead writers; `export` packs what `export_index` does not know
yet, under `export_lock`; `receipts` keeps what hubs acknowledge, and `prune` deletes that.

Other wings use `look` and `recover` (`contents`), `export`, `export_index`, `exclusive` (`export_lock`), `plan` and
`carry_out` (`prune`), `read_receipt` (`receipts`) and `status_of` (`status`).
"""
