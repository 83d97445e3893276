"""Make one HTML page that shows what ran where, what failed and what is missing.

Invariant: only reads; all content of events is shown as text, and everything left out is counted.

The way: `collect` asks the named queries and the `health` of the nodes, `events` takes the lines that are shown whole,
`_view` puts the facts into rows and words, and `report` fills the templates in `page/`.

Other wings use `Choice` (`collect`), `Source` (`source`), `make_report` and `write_report` (`report`). The wing `view`
serves the page (`served`) and asks for its parts itself.
"""
