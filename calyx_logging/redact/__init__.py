"""RedactSecrets: a structlog processor that takes secrets out of an event before anything touches the disk.

Off by default; one line switches it on: `{"()": "calyx_logging.EventFormatter", "processors":
["calyx_logging.redact.RedactSecrets"]}`. It looks at key names (any value under `api_key` is replaced), at lists (pairs
of headers, options of a command line) and at patterns in texts (common forms of API keys, bearer headers, private key
blocks, `password=…`), at any depth, also in the message and in exceptions. The event says how many places were
replaced: `degraded: ["redacted: 2"]`. `_names` knows the names, `_values` what follows one, `_patterns` the forms in
texts.

Invariants: the caller's objects are never changed; a value that cannot be inspected is replaced, not let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import ConfigError
from calyx_logging.events.event import note
from calyx_logging.events.values import MAX_DEPTH, by_rule, is_a, safe_repr
from calyx_logging.redact._names import CERTAIN, NO, NO_OPTION, bare_name, grade, is_file, is_mixed, is_random
from calyx_logging.redact._patterns import LEAST_TEXT, REPLACEMENT, cut

if TYPE_CHECKING:
    from structlog.typing import EventDict

__all__ = ["REPLACEMENT", "RedactSecrets", "redacted_argv"]

_MODEL_WORDS = ("bos", "cls", "end", "eos", "first", "last", "mask", "next", "pad", "sep", "start", "stop", "unk")
_OF_A_MODEL = frozenset(f"{word}token" for word in _MODEL_WORDS)
"""Key names that end in `token` but belong to a language model's vocabulary."""

_LEAST_TOKEN = 8
"""Least length of a credential under `token`; a shorter text, or a number, is a model's token."""

_LEAST_ALONE = 16
"""Least length of a word that is replaced beside `token` or `password` in a pair, though it has letters alone."""

_ALONE = frozenset({"auth", "credential", "credentials", "passphrase", "passwd", "password", "pwd", "secret", "token"})
"""Names that are also words, and so may stand in a list of words."""

_LOGINS = frozenset({"-u", "--user", "--proxy-user"})
"""curl's options for `name:password`."""

_NEVER = frozenset({"_record", "level", "logger", "degraded"})
_MAX_KNOWN = 10_000
_LEAST_UNKNOWN = 100


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
        self._names = _Names(frozenset(map(bare_name, keys)))
        try:
            self._own = [re.compile(pattern) for pattern in patterns]
        except re.error as error:
            raise ConfigError(f"option 'patterns': {error.pattern!r} is no regular expression: {error}") from None

    withhold = True
    """If this processor fails, the event's fields are not kept (see `calyx_logging.events.processors.run_all`)."""

    def __call__(self, logger: object, method_name: str, event_dict: EventDict) -> EventDict:
        search = _Search(self._names, self._own)
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

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self._known: dict[str, tuple[str, int]] = {}
        self.plain: set[str] = set()  # names that hold no secret themselves

    def look(self, key: str) -> tuple[str, int]:
        """Return the key reduced to letters and digits, and whether that is a secret's name (see `grade`)."""
        known = self._known.get(key)
        if known is None:
            bare = bare_name(key)
            known = bare, CERTAIN if bare in self._own else grade(bare)
            if len(self._known) < _MAX_KNOWN and len(key) < _LEAST_UNKNOWN:
                self._known[key] = known
        return known


class _Search:
    """One walk through an event; `count` is the number of places replaced."""

    __slots__ = ("_names", "_own", "_path", "count")

    def __init__(self, names: _Names, own: list[re.Pattern[str]]) -> None:
        self.count = 0
        self._names = names
        self._own = own
        self._path: set[int] = set()

    def under(self, key: object, value: Any) -> Any:
        """Return the value under a key, cleaned."""
        if value is not None and type(value) is not bool:
            bare, found = self._names.look(key if type(key) is str else _text_of(key))
            if found and _is_secret(bare, found, value):
                self.count += 1
                return REPLACEMENT
        return self.value(value)

    def name(self, name: Any) -> Any:
        """Return a key with anything that looks like a secret replaced."""
        if name in self._names.plain:
            return name
        text = name if type(name) is str else _text_of(name)
        clean = self.text(text)
        if clean != text:
            return clean
        if type(name) is str and not self._own and len(self._names.plain) < _MAX_KNOWN and len(name) < _LEAST_UNKNOWN:
            self._names.plain.add(name)
        return name

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
        if len(text) >= LEAST_TEXT:
            text, replaced = cut(text)
            self.count += replaced
        for pattern in self._own:
            text, replaced = pattern.subn(REPLACEMENT, text)
            self.count += replaced
        return text

    def _mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        before = self.count
        clean = {self.name(name) if type(name) is str else name: self.under(name, each) for name, each in value.items()}
        if "value" in value and self._is_pair(value.get("name", value.get("key")), value["value"]):
            clean["value"] = REPLACEMENT
            self.count = max(self.count, before + 1)
        return value if self.count == before else clean

    def _sequence(self, value: list[Any] | tuple[Any, ...]) -> Any:
        before = self.count
        if len(value) == 2 and self._is_pair(*value):
            self.count += 1
            return [value[0], REPLACEMENT]
        if value and type(value[0]) is str:
            clean = self.words(value)
        else:
            clean = [self.value(each) for each in value]
        return value if self.count == before else clean

    def _is_pair(self, name: object, value: object) -> bool:
        """Check whether these two are a header's (or another secret's) name and its value."""
        if type(name) not in (str, bytes) or type(value) not in (str, bytes):
            return False
        bare, found = self._names.look(_text_of(name))
        if found == NO or not _is_secret(bare, found, value):
            return False
        text = _text_of(value)
        return bare not in _ALONE or len(text) >= _LEAST_ALONE or is_mixed(text)

    def words(self, value: Sequence[Any]) -> list[Any]:
        """Return a list that may be a command line, with the values of options for secrets replaced."""
        clean: list[Any] = []
        option = ""  # one for a secret, which is in the next word
        for each in value:
            if type(each) is not str:
                clean.append(self.value(each))
                option = ""
                continue
            if option and self._is_of(option, each):
                each, option = self._of(option, each), ""
            elif each[:1] == "-":
                option, equals, given = each.partition("=")
                if self._names.look(option)[1] == NO and option not in _LOGINS:
                    option = ""
                if equals and option and self._is_of(option, given):
                    each = f"{option}={self._of(option, given)}"
                option = "" if equals else option
            else:
                option = ""
            clean.append(self.text(each))
        return clean

    def _is_of(self, option: str, value: str) -> bool:
        """Check whether an option's value is a secret, or holds one."""
        if not value or value[:2] == "--" or (value[0] == "-" and len(value) == 2):
            return False
        if option in _LOGINS:
            return ":" in value and not value.replace(":", "").isdigit()
        bare, found = self._names.look(option)
        if found == NO or bare.startswith(NO_OPTION) or is_file(bare, value):
            return False
        return _is_secret(bare, found, value)

    def _of(self, option: str, value: str) -> str:
        self.count += 1
        return f"{value.partition(':')[0]}:{REPLACEMENT}" if option in _LOGINS else REPLACEMENT

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


def redacted_argv(argv: Sequence[str]) -> list[str]:
    """Return a command line with the values of options for secrets, and all that looks like a secret, replaced.

    Args:
        argv: the program and its arguments, as in `sys.argv`.
    """
    return _Search(_names(), []).words(argv)


@cache
def _names() -> _Names:
    return _Names(frozenset())


def _text_of(key: Any) -> str:
    """Return a key, or bytes that may be a text, as text."""
    if is_a(key, str):
        return str.__str__(key)
    if is_a(key, (bytes, bytearray, memoryview)):
        return bytes(key).decode("latin-1")
    return safe_repr(key)


def _is_secret(name: str, found: int, value: object) -> bool:
    """Decide whether a value is a secret, given how certainly its name is a secret's (`found`)."""
    if found != CERTAIN:
        text = _text_of(value) if is_a(value, (str, bytes)) else ""
        return is_random(text) or (name.endswith(("pass", "pw")) and is_mixed(text))
    if not name.endswith("token"):
        return True
    is_short = type(value) in (int, float) or (type(value) is str and len(value) < _LEAST_TOKEN)
    return not is_short and name not in _OF_A_MODEL


def _texts(option: str, given: object) -> list[str]:
    texts = [] if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable) else list(given)
    if (given and not texts) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"option {option!r} is {given!r}: give a list of texts")
    return texts
