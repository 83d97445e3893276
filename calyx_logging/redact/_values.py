"""Patterns of what follows the name of a secret in a text: `= 'value'`, `: value`, `("value")`, `>value</`.

Each pattern begins right behind the name, and takes the signs between name and value along. Invariant: none looks at
an unbounded number of characters without taking them.
"""

from __future__ import annotations

from calyx_logging.redact._names import HARMLESS

__all__ = ["CLOSED", "OF_KEY", "OF_PASS", "OF_PASSWORD", "OF_TOKEN", "SUFFIX"]

CLOSED = r"(?:\\*[\"']?\]?|\[[0-9]*\])"
"""What closes a name: `config["password"]`, `char password[25]`."""

SUFFIX = (
    rf"(?i:(?![_-]?(?:{HARMLESS})(?![A-Za-z0-9]))(?:[_-][A-Za-z0-9][A-Za-z0-9_-]{{0,24}}"
    r"|(?-i:[A-Z])[A-Za-z0-9]{1,24}|s?[0-9]{0,3}))"
)
"""What may follow a name and leave it a secret's: `private_key_pem`, `password2`, `passwordHash`."""

_END = r"(?=[\s\"'`&,;)\]}<\\]|$)"
_SET = r"\s*(?:[=:!]{1,3}>?|=>)\s*@?"
_SET_PLAIN = r"\s*(?:=>|:=|=(?!=)|:{1,2})\s*"

_PLACEHOLDER = r"(?:<[^<>\n]{0,60}>|\*+|\.{3,}|\$?\{[^{}\n]{0,60}\}|%s)"
_NOTHING = (
    rf"(?!(?:(?i:any|bool|bytes|false|int|nil|none|null|object|str|string|true|undefined|x{{3,}})|[0-9.]+|{_PLACEHOLDER}|%\(\w{{1,40}}\)s"
    rf"|\$\{{?[A-Z_][A-Z0-9_]{{0,60}}\}}?|[\w./~-]{{1,100}}\.(?:crt|json|key|p12|pem|pfx|ppk|pub|txt|ya?ml)){_END})"
)
"""Not what stands for no value, for a type, for a file, or for what is filled in later: `None`, `str`, `${API_KEY}`."""

_CODE = (
    r"(?!(?:[A-Za-z_]++\.)*+[A-Za-z_]++[(\[])"
    r"(?!(?i:[a-z_.]{0,80}?(?<![a-z])(?:api_?key|key|password|passwd|passphrase|pwd|secret|token)s?)"
    rf"{_END})"
)
"""Not a call, an item or another variable: `os.environ["KEY"]`, `self.token`."""

_PLAIN = rf"{_NOTHING}{_CODE}[^\s\"'`&,;\[{{(\\]{{4,}}"
_TELLING = r"(?=[^\s\"'`&,;]{0,200}[0-9]|[^\s\"'`&,;]{16})"
_NUMBER = rf"[0-9]{{6,}}{_END}"
_WITH_SIGNS = rf"{_NOTHING}{_CODE}(?=\S{{0,200}}[0-9])[^\s\"'`\[{{(\\][^\s\"'`]{{5,}}"


def _quote(name: str) -> str:
    return rf"[bfruBFRU]?(?P<{name}>\\*[\"'`])(?!\[redacted\])"


def _quoted(name: str) -> str:
    """Return the pattern of an opening quote and of all that it quotes."""
    return rf"{_quote(name)}(?!{_PLACEHOLDER}(?P={name}))(?:(?!(?P={name}))(?:\\.|[^\\\n]))+"


_LONG = r"\s+(?:is\s+)?\\*[\"'`]?(?=[^\s\"'`]{0,200}[0-9])(?=[^\s\"'`]{0,200}[A-Za-z])[A-Za-z0-9_+/=.~-]{20,}"
_IN_CALL = rf"(?:\.assign)?\(\s*{_quote('c')}(?=[^\"'`\s]{{0,200}}[0-9])[^\"'`\s]{{8,}}"
_IN_LIST = rf"{_SET_PLAIN}[\[{{(]\s*{_quoted('l')}[^\])}}\n]*"
_IN_PAIR = rf",\s*{_quote('p')}(?=[^\"'`\s]{{0,200}}[0-9])[^\"'`\s]{{8,}}"
_BESIDE = (
    r"[^\s\"'`]{0,20}\s*(?P<r>\\*[\"'`])[^\"'`\\\n]{1,200}(?P=r)(?=;)"
    rf"|>[^\s<]{{4,200}}(?=</)|{_IN_PAIR}|{_IN_CALL}|{_LONG}"
)

OF_PASSWORD = rf"{CLOSED}(?:{_SET}{_quoted('q')}|{_SET_PLAIN}(?:{_PLAIN}|{_NUMBER}|{_WITH_SIGNS})|{_IN_LIST}|{_BESIDE})"
"""Any text, quoted or plain."""

OF_KEY = rf"{CLOSED}(?:{_SET}{_quoted('q')}|{_SET_PLAIN}{_TELLING}{_PLAIN}|\s*=(?!=)\s*{_PLAIN}|{_IN_LIST}|{_BESIDE})"
"""As a password, but behind a colon not a short word: `token: the`."""

OF_TOKEN = (
    rf"{CLOSED}(?:{_SET}{_quote('q')}(?=[^\"'`\s]{{8}})[^\"'`\s]+(?=[\"'`\\]|$)|{_SET_PLAIN}{_TELLING}{_PLAIN}"
    rf"|\s*=(?!=)\s*{_PLAIN}|{_BESIDE})"
)
"""As a key, but nothing of less than 8 characters, and no words, in quotes: those are a model's tokens."""

OF_PASS = (
    r"\s*(?:=>|:=|[=:]{1,2})\s*(?:[bfru]?\\*[\"'`](?P<quoted>[^\"'`\s]{4,100})|(?P<value>[^\s\"'`&,;\[{(\\]{4,100}))"
)
"""As a password, but with the value in a group, to be judged."""
