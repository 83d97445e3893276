"""Serve the report's page from this machine, while a session runs: `calyx-telemetry view`.

The way: `content` answers what the page asks, from the same queries as the report; `stream` hands on what is written to
the outbox; `access` decides who may ask; `server` puts them together. Needs the extra `view`.

Invariants: nothing but this machine's loopback is listened on; every answer needs the token that is in the printed
address; nothing is changed by a request; what one visitor can take (connections, memory, time) is bounded.
"""
