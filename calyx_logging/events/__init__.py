"""From a log call to an event line.

Invariant: every record becomes one line of JSON, however odd its fields are; nothing here writes a file.

The way: a LogRecord enters `formatter` (`fast_path` for plain ones, `values` and `tracebacks` for odd ones), passes
the structlog processors (`processors`) and the bound fields (`context`), gets its `stamp`, and leaves as the bytes
that `event` encodes. `structlog_bridge` and `fast_logger` are other ways in, `capture` keeps a handler on loggers.

Other wings use `event` (`encode`, `decode`, control events), `stamp` (`StampEvent`, `take`), `formatter`
(`EventFormatter`), `context`, `processors`, `capture`, `fast_logger`, `tracebacks` and `values`.
"""
