"""The machinery that proves the promise: kills, crash states, failing system calls. Each module runs by itself."""
