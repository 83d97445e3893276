"""Turn log calls into event lines.

Invariant: every record becomes one line of JSON, however odd its fields are; nothing here writes a file.

Data flow: a LogRecord enters `formatter` (`fast_path` for plain ones, `values` and `tracebacks` for the rest), gets the
bound fields (`context`), passes the structlog processors (`processors`), gets its `stamp`, and is encoded to bytes by
`event`. `structlog_bridge` and `fast_logger` are other entry points; `capture` keeps a handler on loggers.

Other wings use `event` (`encode`, `decode`, control events), `stamp` (`StampEvent`, `take`), `formatter`
(`EventFormatter`), `context`, `processors`, `capture`, `fast_logger`, `tracebacks` and `values`.
"""
