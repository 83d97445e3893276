"""One page of what ran where, what failed and what is missing.

Invariant: only reads; whatever an event says is shown as text, and whatever has no room is counted.

The way: `collect` asks the named queries and the `health` of the nodes, `events` takes the lines that are shown whole,
`_view` puts the facts into rows and words, and `report` fills the templates in `page/`.

Other wings use `Choice` and `Source` (`collect`), `make_report` and `write_report` (`report`).
"""
