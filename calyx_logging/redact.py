"""RedactSecrets: a structlog processor that takes secrets out of an event before anything touches the disk.

Off by default; one line switches it on: `{"()": "calyx_logging.EventFormatter", "processors":
["calyx_logging.redact.RedactSecrets"]}`. It looks at key names (any value under `api_key` is replaced) and at patterns
in texts (common forms of API keys, bearer headers, private key blocks, `password=…`), at any depth, also in the message
and in exceptions. The event says how many places were replaced: `degraded: ["redacted: 2"]`.

Invariants: the caller's objects are never changed; a value that cannot be inspected is replaced, not let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import ConfigError
from calyx_logging.events.event import note
from calyx_logging.events.values import MAX_DEPTH, by_rule, is_a, safe_repr

if TYPE_CHECKING:
    from structlog.typing import EventDict

__all__ = ["REPLACEMENT", "RedactSecrets"]

REPLACEMENT = "[redacted]"

KEYS = frozenset(
    (
        *("accesskey", "apikey", "auth", "authorization", "bearer", "clientsecret", "cookie", "credential"),
        *("credentials", "passphrase", "passwd", "password", "privatekey", "proxyauthorization", "pwd", "secret"),
        *("secretaccesskey", "secretkey", "setcookie", "signingkey", "token"),
    )
)
"""Key names of secrets, in lower case, reduced to letters and digits."""

_ENDINGS = ("apikey", "password", "passwd", "secret", "secretkey", "accesskey", "privatekey", "token", "passphrase")
"""Endings that also mark a key as a secret's: `openai_api_key`, `hf_token`, but not `max_tokens`."""

_MODEL_WORDS = ("bos", "cls", "end", "eos", "first", "last", "mask", "next", "pad", "sep", "start", "stop", "unk")
_OF_A_MODEL = frozenset(f"{word}token" for word in _MODEL_WORDS)
"""Key names that end in `token` but belong to a language model's vocabulary."""

_LEAST_TOKEN = 8
"""Least length of a credential under `token`; a shorter text, or a number, is a model's token."""

_SEPARATORS = re.compile(r"[^a-z0-9]+")

_BEFORE = r"(?<![A-Za-z0-9_-])"
_PLAIN = r"(?!(?:None|null|true|false|[0-9.]+)(?=[\s\"'&,;)\]}]|$))"
_QUOTED = r"""\\*"[^"\\\n]+|'[^'\n]+"""

_PATTERNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sk-", "rk-", "pk-"), _BEFORE + r"[srp]k-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9][A-Za-z0-9_-]{15,}"),
    (("sk_", "rk_"), r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    (("github_pat_",), r"\bgithub_pat_[A-Za-z0-9_]{20,}"),
    (("glpat-",), _BEFORE + r"glpat-[A-Za-z0-9_-]{16,}"),
    (("hf_",), r"\bhf_[A-Za-z0-9]{20,}"),
    (("npm_",), r"\bnpm_[A-Za-z0-9]{30,}"),
    (("pypi-",), _BEFORE + r"pypi-[A-Za-z0-9_-]{30,}"),
    (("xox",), _BEFORE + r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    (("akia", "asia"), r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b"),
    (("aiza",), _BEFORE + r"AIza[0-9A-Za-z_-]{30,}"),
    (("eyj",), _BEFORE + r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    (("bearer",), r"(?i:(?<=\bbearer)\s+)(?:(?=\S*[0-9])[A-Za-z0-9._~+/=-]{8,}|[A-Za-z._~+/=-]{24,})"),
    (("basic",), r"(?<=\b[Bb]asic )(?=[A-Za-z0-9+/]*[0-9=])[A-Za-z0-9+/=]{12,}"),
    (("private key",), r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:(?!-----END )[\s\S])*(?:-----END [A-Z0-9 ]*-----)?"),
    (("://",), r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)"),
    (
        ("passw", "passphrase", "secret", "pwd"),
        r"(?i:(?:secret|password|passwd|passphrase|pwd)(?:\\*[\"'])?\s*[=:]\s*)"
        rf"(?:{_QUOTED}|{_PLAIN}[^\s\"'&,;\[{{(\\]{{4,}})",
    ),
    (
        ("key", "token"),
        r"(?i:(?:api[_-]?key|access[_-]?key|token)(?:\\*[\"'])?\s*)"
        rf"(?:[=:]\s*(?:{_QUOTED})|[=:]\s*{_PLAIN}(?=[^\s\"'&,;]*[0-9]|[^\s\"'&,;]{{16}})[^\s\"'&,;\[{{(\\]{{4,}}"
        rf"|=\s*{_PLAIN}[^\s\"'&,;\[{{(\\]{{4,}})",
    ),
)
"""Lower-case substrings that announce a pattern, and the pattern; `_may_hold` must know each of them."""

_Form = tuple[tuple[str, ...], re.Pattern[str]]
_NEVER = frozenset({"_record", "level", "logger", "degraded"})
_MAX_KNOWN = 10_000
_LEAST_TEXT = 7
"""Length of the shortest text that a pattern matches: `://u:p@`."""


def _may_hold(low: str) -> bool:
    """Tell quickly whether any pattern can match in a lower-case text; most texts contain none."""
    return (
        ("bearer" in low or "basic " in low or "akia" in low or "asia" in low or "aiza" in low or "eyj" in low)
        or (
            ("=" in low or ":" in low)
            and ("key" in low or "token" in low or "pass" in low or "secret" in low or "pwd" in low or "://" in low)
        )
        or ("-" in low and ("k-" in low or "xox" in low or "glpat-" in low or "pypi-" in low or "private" in low))
        or ("_" in low and ("k_" in low or "gh" in low or "github_pat_" in low or "hf_" in low or "npm_" in low))
    )


class RedactSecrets:
    """Replaces secrets in an event by `[redacted]`.

    Args:
        keys: more key names; case, `_` and `-` do not matter.
        patterns: more regular expressions; their matches in texts are replaced.

    Raises:
        ConfigError: one of them is not a text, or not a valid regular expression.
    """

    def __init__(self, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        keys, patterns = _texts("keys", keys), _texts("patterns", patterns)
        self._names = _Names(KEYS | {_SEPARATORS.sub("", key.lower()) for key in keys})
        self._patterns = [(needles, re.compile(form)) for needles, form in _PATTERNS]
        try:
            self._own = [re.compile(pattern) for pattern in patterns]
        except re.error as error:
            raise ConfigError(f"option 'patterns': {error.pattern!r} is no regular expression: {error}") from None

    withhold = True
    """If this processor fails, the event's fields are not kept (see `calyx_logging.events.processors.run_all`)."""

    def __call__(self, logger: object, method_name: str, event_dict: EventDict) -> EventDict:
        search = _Search(self._names, self._patterns, self._own)
        for name in list(event_dict):
            if name in _NEVER:
                continue
            before = search.count
            try:
                clean = search.under(name, event_dict[name])
                clean_name = search.name(name)
            except Exception:  # an object that cannot be inspected may hold a secret
                clean, clean_name, search.count = REPLACEMENT, name, before + 1
            if search.count != before:
                del event_dict[name]
                event_dict[clean_name] = clean
        if search.count:
            note(event_dict, [f"redacted: {search.count}"])
        return event_dict


class _Names:
    """Cache of key names: tells whether the value under a key is a secret."""

    def __init__(self, keys: frozenset[str]) -> None:
        self._keys = keys
        self._known: dict[str, tuple[str, bool]] = {}

    def look(self, key: str) -> tuple[str, bool]:
        """Return the key reduced to letters and digits, and whether that is a secret's name."""
        known = self._known.get(key)
        if known is None:
            bare = _SEPARATORS.sub("", key.lower())
            known = bare, bare in self._keys or bare.endswith(_ENDINGS)
            if len(self._known) < _MAX_KNOWN and len(key) < 100:
                self._known[key] = known
        return known


class _Search:
    """One walk through an event; `count` is the number of places replaced."""

    __slots__ = ("_names", "_own", "_path", "_patterns", "count")

    def __init__(self, names: _Names, patterns: list[_Form], own: list[re.Pattern[str]]) -> None:
        self.count = 0
        self._names = names
        self._patterns = patterns
        self._own = own
        self._path: set[int] = set()

    def under(self, key: object, value: Any) -> Any:
        """Return the value under a key, cleaned."""
        if value is not None and type(value) is not bool:
            bare, is_secret = self._names.look(key if type(key) is str else _text_of(key))
            if is_secret and not _is_of_a_model(bare, value):
                self.count += 1
                return REPLACEMENT
        return self.value(value)

    def name(self, name: Any) -> Any:
        """Return a key with anything that looks like a secret replaced."""
        text = name if type(name) is str else _text_of(name)
        clean = self.text(text)
        return name if clean == text else clean

    def value(self, value: Any) -> Any:
        """Return the value itself if nothing had to be replaced, else a changed copy."""
        kind = type(value)
        if kind is str:
            return self.text(value)
        if value is None or kind is int or kind is float or kind is bool:
            return value
        if id(value) in self._path or len(self._path) >= MAX_DEPTH:
            return self._by_repr(value)  # a cycle, or a value that the event will hold as a repr
        self._path.add(id(value))
        try:
            if kind is dict:
                return self._mapping(value)
            if kind is list or kind is tuple:
                return self._sequence(value)
            return self._other(value)
        finally:
            self._path.discard(id(value))

    def text(self, text: str) -> str:
        """Return the text with anything that looks like a secret replaced."""
        if len(text) >= _LEAST_TEXT and _may_hold(low := text.lower()):
            for needles, pattern in self._patterns:
                for needle in needles:
                    if needle in low:
                        text, replaced = pattern.subn(REPLACEMENT, text)
                        self.count += replaced
                        break
        for pattern in self._own:
            text, replaced = pattern.subn(REPLACEMENT, text)
            self.count += replaced
        return text

    def _mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        before = self.count
        clean = {self.text(name) if type(name) is str else name: self.under(name, each) for name, each in value.items()}
        return value if self.count == before else clean

    def _sequence(self, value: list[Any] | tuple[Any, ...]) -> Any:
        before = self.count
        clean = [self.value(each) for each in value]
        return value if self.count == before else clean

    def _other(self, value: Any) -> Any:
        """Clean a value that is not JSON yet by converting it step by step, as the encoder will."""
        before = self.count
        if is_a(value, (bytes, bytearray, memoryview)):  # searched as text, not as the base64 in the event
            self.text(_text_of(value))
            return value if self.count == before else REPLACEMENT
        try:
            nearer = by_rule(value)
        except Exception:  # there is no rule for it, or it cannot be inspected
            return self._by_repr(value)
        clean = self.value(nearer)
        return value if self.count == before else clean

    def _by_repr(self, value: Any) -> Any:
        before = self.count
        clean = self.text(safe_repr(value))
        return value if self.count == before and id(value) not in self._path else clean


def _text_of(key: Any) -> str:
    """Return a key, or bytes that may be a text, as text."""
    if is_a(key, str):
        return str.__str__(key)
    if is_a(key, (bytes, bytearray, memoryview)):
        return bytes(key).decode("latin-1")
    return safe_repr(key)


def _is_of_a_model(name: str, value: object) -> bool:
    if not name.endswith("token"):
        return False
    is_short = type(value) in (int, float) or (type(value) is str and len(value) < _LEAST_TOKEN)
    return is_short or name in _OF_A_MODEL


def _texts(option: str, given: object) -> list[str]:
    texts = [] if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable) else list(given)
    if (given and not texts) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"option {option!r} is {given!r}: give a list of texts")
    return texts
