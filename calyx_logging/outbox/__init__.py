"""Recover, export, acknowledge and prune a node's recorded chunks, and report their status.

Invariant: only chunks that a hub's receipt covers are deleted, and a bundle gets its name only once it is complete.

Data flow: `contents` lists the chunks and `recovery` seals those of dead writers; `export` packs what `export_index`
does not know yet, under `export_lock` and by `copying`; `receipts` keeps the hubs' acknowledgements, and `prune`
deletes what they cover.

Other wings use `look` and `recover` (`contents`), `export`, `export_index`, `exclusive` (`export_lock`), `plan` and
`carry_out` (`prune`), `read_receipt` (`receipts`) and `status_of` (`status`).
"""
