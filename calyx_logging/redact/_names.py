"""Names of secrets: which keys, headers, options and parameters hold one, and which values look like one.

Invariant: a name is judged by its letters and digits alone, in lower case; `API-Key`, `api_key` and `ApiKey` are one.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = [
    *("CERTAIN", "HARMLESS", "KEYS", "KINDS_OF_KEY", "MAYBE", "NO", "NO_OPTION", "OWNERS_OF_A_PASS"),
    *("bare_name", "grade", "is_file", "is_mixed", "is_random"),
]

NO, MAYBE, CERTAIN = 0, 1, 2
"""Whether a name is a secret's: no; if the value looks like one; whatever the value is."""

KEYS = frozenset(
    (
        *("accesskey", "apikey", "auth", "authorization", "bearer", "clientsecret", "cookie", "cookies", "credential"),
        *("credentials", "jwt", "passphrase", "passwd", "password", "privatekey", "proxyauthorization", "pwd"),
        *("secret", "secretaccesskey", "secretkey", "setcookie", "signingkey", "token", "webhookurl"),
    )
)
"""Key names of secrets, in lower case, reduced to letters and digits."""

KINDS_OF_KEY = (
    *("access", "account", "api", "auth", "client", "cloud", "cloudant", "clou", "cl", "database", "db", "encryption"),
    *("functions", "hmac", "ibm", "iam", "master", "priv", "private", "secret", "service", "shared", "signing"),
    *("softlayer", "sl", "storage", "subscription"),
)
"""What stands before `key` where it is a secret; a cache, a table or a sort has other keys."""

OWNERS_OF_A_PASS = (
    *("admin", "api", "cl", "clou", "cloud", "cloudant", "database", "db", "ftp", "iam", "ibm", "key", "ldap", "mail"),
    *("root", "sl", "smtp", "softlayer", "user"),
)
"""What stands before `pass` or `pw` where it is a password; a test, a model and a compiler have other passes."""

NO_OPTION = ("ask", "forget", "hide", "no", "prompt", "skip", "use", "without")
"""How the name of an option begins that speaks about a secret, and takes none."""

_LISTS_OF_TOKENS = tuple(f"{kind}tokens" for kind in ("access", "api", "auth", "bearer", "bot", "refresh", "session"))
_ENDINGS = (
    *("authorization", "contrasea", "contrasena", "cookie", "passphrase", "passwd", "password", "passwort", "secret"),
    *("amzsignature", "googsignature", "sharedaccesssignature", "token", *_LISTS_OF_TOKENS, "webhookurl"),
    *(f"{kind}key" for kind in KINDS_OF_KEY if len(kind) > 2),
    *(f"{owner}pass" for owner in OWNERS_OF_A_PASS if len(owner) > 2),
)
"""Endings that mark a key as a secret's: `openai_api_key`, `hf_token`, but not `max_tokens`."""

_WHOLE = frozenset(
    (
        *(f"{owner}key" for owner in KINDS_OF_KEY),
        *(f"{owner}{word}" for owner in OWNERS_OF_A_PASS for word in ("pass", "pw")),
    )
)
_MAYBE = ("credential", "creds", "key", "pass", "pw", "sas", "sig")
_PLURALS = tuple(f"{ending}s" for ending in _ENDINGS if not ending.endswith(("token", "tokens")))
_INSIDE = re.compile(
    "(?:apikey|accesskey|clientsecret|passphrase|passwd|password|privatekey|secretkey|tokensecret)s?(?P<rest>.+)"
)

HARMLESS = (
    r"age|algo\w*|attempts?|bits|changed|checked|count|created|env|exists|expir\w*|fields?|files?|format|found|hint|ids?"
    r"|inputs?|kind|label|len|length|less|limit|location|manager|missing|names?|of|ok|path|polic\w+|prefix|present"
    r"|prompt|provider|reset|required|rules?|scopes?|set|size|source|status|stdin|strength|type|ttl|updated|ur[il]|used"
    r"|valid\w*|vars?|version"
)
"""What follows such a name where it speaks about a secret and does not hold it: `api_key_env`, `password_length`."""

_HARMLESS_REST = re.compile(HARMLESS)
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_KEYS_GIVEN_AS_SUCH = ("accesskey", "accountkey", "apikey", "authkey", "secretkey", "storagekey", "subscriptionkey")
_LEAST_KEY = 20
_LEAST_RANDOM = 16
_LEAST_MIXED = 6


def bare_name(name: str) -> str:
    """Reduce a name to its letters and digits, in lower case."""
    return _SEPARATORS.sub("", name.lower())


def grade(name: str) -> int:
    """Decide whether a name, reduced by `bare_name`, is a secret's: `NO`, `MAYBE` or `CERTAIN`."""
    if name in KEYS or name in _WHOLE or name.endswith(_ENDINGS) or name.endswith(_PLURALS):
        return CERTAIN
    if (unnumbered := name.rstrip("0123456789")) != name and not unnumbered.endswith("token"):
        return grade(unnumbered)
    if found := _INSIDE.search(name):
        return NO if _HARMLESS_REST.match(found["rest"]) else MAYBE if found["rest"].isdigit() else CERTAIN
    return MAYBE if name.endswith(_MAYBE) and not name.endswith(("publickey", "monkey", "bypass", "compass")) else NO


def is_file(option: str, value: str) -> bool:
    """Check whether an option (reduced by `bare_name`) takes a key's file or name, not the key."""
    if not option.endswith("key") or option.endswith(_KEYS_GIVEN_AS_SUCH):
        return False
    return len(value) < _LEAST_KEY or any(sign in value for sign in "/\\.")


def is_random(text: str) -> bool:
    """Check whether a text looks random: long, with both cases and digits, changing between them often."""
    if len(text) < _LEAST_RANDOM or any(each.isspace() for each in text):
        return False
    kinds = ["a" if each.islower() else "A" if each.isupper() else "0" if each.isdigit() else "" for each in text[:200]]
    changes = sum(one != other for one, other in pairwise(kinds) if one and other)
    return {"a", "A", "0"} <= set(kinds) and changes >= 0.4 * len(kinds)


def is_mixed(text: str) -> bool:
    """Check whether a text may be a short password: letters, and a digit or a sign that no word has."""
    if len(text) < _LEAST_MIXED or not any(each.isalpha() for each in text):
        return False
    return any(each.isdigit() or not (each.isalpha() or each in "_-./:' ") for each in text)
