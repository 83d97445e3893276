"""Forms of secrets in texts, and one function, `cut`, that takes all of them out of a text.

A form has a needle, a lower-case text that is searched for quickly, and a pattern that has to match where the needle
stands; without a needle the pattern is searched for. What its group `keep` matches stays in the text.

Invariants: a text without secrets costs a few searches for short texts (`_may_hold`); the time is linear in the text's
length, since a pattern either replaces what it looked through, or looks at a bounded number of characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from calyx_logging.redact._names import (
    CERTAIN,
    KINDS_OF_KEY,
    NO,
    NO_OPTION,
    OWNERS_OF_A_PASS,
    bare_name,
    grade,
    is_file,
    is_mixed,
    is_random,
)
from calyx_logging.redact._values import CLOSED, OF_KEY, OF_PASS, OF_PASSWORD, OF_TOKEN, SUFFIX

__all__ = ["LEAST_TEXT", "REPLACEMENT", "cut"]

REPLACEMENT = "[redacted]"

LEAST_TEXT = 7
"""Length of the shortest text that a form matches: `://u:p@`."""

_LEAST_FORM = 15
"""Length of the shortest secret that is known by its form alone: `xoxb-0123456789`."""

_Match = re.Match[str]


class Form(NamedTuple):
    """One form of secrets; a match begins `back` characters before the needle, and `judge` may refuse it."""

    pattern: re.Pattern[str]
    judge: Callable[[_Match], bool] | None
    back: int


_Forms = dict[str, list[Form]]
"""Forms by needle; under no needle those that are searched for."""


def _forms(needles: str, pattern: str, judge: Callable[[_Match], bool] | None = None, back: int = 0) -> _Forms:
    return {needle: [Form(re.compile(pattern), judge, back)] for needle in needles.split("|")}


def _all(*given: _Forms) -> _Forms:
    """Bring forms with the same needle together, since searching for it costs more than trying a pattern."""
    found: _Forms = {}
    for forms in given:
        for needle, of_needle in forms.items():
            found.setdefault(needle, []).extend(of_needle)
    return found


def _after(words: tuple[str, ...], last: str) -> str:
    """Return a pattern that looks back, from behind `last`, for one of the words before it."""
    found = []
    for width in sorted({len(word) for word in words}):
        word = f"(?:{'|'.join(word for word in words if len(word) == width)})"
        if width == 2:  # also the end of many words
            word = rf"(?:(?<![a-z])|(?<=\\[nrt])){word}"
        found += [rf"(?<={word}{last})", rf"(?<={word}[_ -]{last})"]
    return f"(?:{'|'.join(found)})"


_START = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[bfnrtv]))"
"""The start of a word, also after an escape in a repr: `b'one\\nsk-…'`."""

_RUN = r"[A-Za-z0-9_+/.-]"
_RUN_ON = re.compile(r"[A-Za-z0-9_+/=.~-]*")


def _is_a_pass(match: _Match) -> bool:
    return is_mixed(match["quoted"] or match["value"]) or (match["quoted"] is not None and "=" in match[0])


def _is_random(match: _Match) -> bool:
    return is_random(match["value"])


def _is_a_parameter(match: _Match) -> bool:
    value = match["value"]
    return match["certain"] is not None or (len(value) >= 8 and is_mixed(value)) or is_random(value)


_WORDS_OF_HELP = re.compile(
    r"(?i)(?:\w+_)?(?:arguments?|files?|flags?|is|keys?|must|options?|passwords?|secrets?|switch|text|tokens?|values?)\W*$"
)


def _is_an_option(match: _Match) -> bool:
    name, value = bare_name(match["name"]), match["value"]
    if name.startswith(NO_OPTION) or _WORDS_OF_HELP.match(value):
        return False
    if name.endswith(("token", "auth")):
        return len(value) >= 16 or is_mixed(value)
    if grade(name) == CERTAIN:
        return not is_file(name, value)
    return grade(name) != NO and is_random(value)


def _is_a_credential(match: _Match) -> bool:
    """Distinguish a credential from prose after `authorization:`."""
    value = match["value"]
    return len(value) >= 16 or is_mixed(value) or (match["known"] is not None and len(value) >= 4)


def _is_of_aws(match: _Match) -> bool:
    return match["value"] != match["value"].lower()


_PARAMETERS = (
    r"(?P<certain>sig|[\w.-]{0,40}(?:token|secret|passw(?:or)?d|signature|credential|api_?key|subscription-key|accesskeyid))"
    r"|assertion|auth|code|jwt|key|pass|pwd|sas|ticket"
)
_SCHEMES = (
    r"api-?key|aws4-hmac-sha256|basic|bearer|bot|digest|hawk|hmac|jwt|key|mac|negotiate|ntlm|oauth|private-token|splunk"
    r"|ssws|token"
)
_PAIR = r"[\w!#$%&*+.^|~-]{1,100}=(?:\"[^\"\n]*\"|[^\s;\"'\\]*)"
_ASSIGNED = r"[\w-]{1,40}=(?:\"[^\"\n]*\"|[^\s,\"'\\]+)"
_PORT = r"(?![0-9]{1,5}(?:[/?#\s\"'`,;)\]}]|$))"
_PLACE = r"(?!(?:\{[^{}\s]{0,60}\}|<[^<>]{0,60}>|\$\{?[A-Z_]{1,60}\}?|\*+|%s)@)"
_IN_PASSWORD = r"(?:(?!://)(?:[^\s\"'`<>]|[\"'`](?![\s,;:)\]}>=\"'`\\]|$)))"
_NO_MODELS = (
    r"(?<!(?:bos|cls|end|eos|pad|sep|unk)[_-]token)(?<!(?:last|mask|next|stop)[_-]token)(?<!(?:first|start)[_-]token)"
)
_AFTER_KEY = _after(KINDS_OF_KEY, "key")
_OWNED = f"(?:pass{_after(OWNERS_OF_A_PASS, 'pass')}|pw{_after(OWNERS_OF_A_PASS, 'pw')})"

_BLOCKS = _all(
    _forms(
        "-----begin|---- begin",
        r"-{4,5} ?BEGIN [A-Z0-9 ]{0,60}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
        r"(?:(?!-{4,5} ?END )[\s\S])*(?:-{4,5} ?END [A-Z0-9 ]{0,60}-{0,5})?",
    ),
    _forms(
        "putty-user-key-file",
        r"PuTTY-User-Key-File-[0-9](?:(?!Private-(?:MAC|Hash))[\s\S])*(?:Private-(?:MAC|Hash):?\s*[0-9a-f]*)?",
    ),
)
_URLS = _all(
    _forms("://", rf"(?P<keep>://)[^\s/@:\"'?#.<>\[]*:{_PORT}{_PLACE}{_IN_PASSWORD}+(?=@[\w\[.-])"),
    _forms("://", rf"(?P<keep>://)[^\s/@:\"'?#<>\[]*:{_PORT}{_PLACE}[^\s/@\"'<>]+(?=@)"),
    _forms("://", r"(?P<keep>://)(?:(?=[^\s/@:?#\"'<>]*[0-9])[^\s/@:?#\"'<>]{16,}|[A-Za-z_-]{24,}):?(?=@)"),
    _forms("hooks.", r"(?i)(?P<keep>hooks\.(?:[a-z0-9-]{1,40}\.){1,4}[a-z]{2,10}(?::[0-9]+)?/)[^\s\"'`<>\\)]{8,}"),
    _forms("webhook", r"(?i)(?P<keep>webhook(?:s|b2|\.office\.com)?/)[^\s\"'`<>\\)]{16,}"),
    _forms("softlayer.com/", r"(?i)(?P<keep>softlayer\.com/soap/v3(?:\.1)?/)[a-z0-9]{64}"),
    _forms("/with/key/", r"(?P<keep>/with/key/)[\w-]{10,}"),
)
_PASSWORD = (
    r"(?i:passw(?:or)?d|passwort|passphrase|contrase(?:n|ñ|\\+(?:u00[df]1|x[df]1|xc3\\+x[9b]1))a|secret"
    r"|pwd(?!\W{1,4}[/~.]))"
)
_NAMED = _all(
    _forms(
        "?|&|#",
        rf"(?i)(?P<keep>[?&#](?:amp;)?(?:{_PARAMETERS})=)(?!\[redacted\]|\{{)(?P<value>[^\s&#\"'<>`\\]{{4,400}})",
        _is_a_parameter,
    ),
    _forms(
        "auth",
        r"(?i)(?P<keep>authorization(?:\\*[\"'])?\]?\s*[=:,]\s*[bfru]?(?:\\*[\"'])?"
        rf"(?:(?P<known>{_SCHEMES})\s+|[a-z][\w-]{{0,30}}\s+(?=[^\s\"'\\,]{{6}})|))"
        rf"(?!\S{{0,40}}\[redacted\]|[a-z_.]{{1,60}}[\[(])(?P<value>{_ASSIGNED}(?:,\s*{_ASSIGNED})*|[^\s\"'\\,]+)",
        _is_a_credential,
    ),
    _forms(
        "cookie",
        r"(?i)(?P<keep>cookie(?:\\*[\"'])?\]?\s*[=:,]\s*[bfru]?(?:\\*[\"'])?)"
        rf"{_PAIR}(?:;\s*(?:{_PAIR}|[a-z]{{4,20}}\b))*",
    ),
    _forms(
        "aws",
        r"(?i)(?P<keep>aws[^\n]{0,30}?(?:key|pw|pass|token|secret)[^\n]{0,20}?[\"'=:\s])(?P<value>[a-z0-9/+]{40})"
        r"(?![a-z0-9/+=])",
        _is_of_aws,
    ),
    _forms("pass|secret|pw|contrase", rf"{_PASSWORD}(?!s:\s{{1,3}}[A-Za-z]{{1,20}}[\s,.]){SUFFIX}{OF_PASSWORD}"),
    _forms("pass|pw", rf"(?i:{_OWNED}){SUFFIX}{OF_PASSWORD}"),
    _forms("key", rf"(?i:key{_AFTER_KEY}){SUFFIX}{OF_KEY}"),
    _forms("token", rf"(?i:token{_NO_MODELS})[0-9]?{OF_TOKEN}"),
    _forms(
        "key", rf"(?P<keep>(?i:key){CLOSED}\s*[=:]{{1,2}}>?\s*[bfru]?\\*[\"'`]?)(?P<value>{_RUN}{{16,100}})", _is_random
    ),
    _forms(
        "key|pass|pw|auth|cred",
        rf"(?P<keep>(?i:key|pass|pw|auth|cred\w{{0,9}})\s+\\*[\"'`]?)(?P<value>{_RUN}{{20,100}})",
        _is_random,
    ),
    _forms(
        "pass|pw",
        rf"(?P<keep>(?i:pass(?:(?<![a-z]pass)|(?<=\\[nrt]pass))|pw(?:(?<![a-z]pw)|(?<=\\[nrt]pw))){CLOSED}){OF_PASS}",
        _is_a_pass,
    ),
    _forms("auth", r"(?P<keep>(?i:auth)\s*[=:]\s*)\((?=\s*[bfru]?[\"'][^\"'\n)][^\n)]{0,200}[\"'])[^\n)]{0,400}\)?"),
    _forms(
        "--",
        r"(?P<keep>(?:(?<![\w-])|(?<=\\[nrt]))--(?P<name>[A-Za-z][\w.-]{0,60})"
        r"(?:[ \t]+[\"']?|=[\"']?|\\*[\"'],\s*[bru]?\\*[\"']))"
        r"(?!-|\[redacted\])(?P<value>[^\s\"'`\\]{4,400})",
        _is_an_option,
    ),
)
_COMPARED = _forms(
    "",
    r"(?P<keep>[\"'`])[^\"'`\s]{4,100}(?=[\"'`]\s{0,4}[!=]{2,3}\s{0,4}[\w.]{0,40}?"
    r"(?i:passw|passphrase|contrase|pwd|secret|(?:db|database|key)_?pass"
    r"|(?:account|api|auth|client|database|db|priv|private|service)_?key))",
)
_DASHED = _all(
    _forms("k-", r"(?i:[spr]k-)(?=[A-Za-z0-9_-]{0,200}[0-9])[A-Za-z0-9][A-Za-z0-9_-]{15,}", back=1),
    _forms("gl", rf"{_START}gl(?:pat|dt|ft|ffct|soat|rt|cbt|imt|ptt|agent|oas|wt)-[A-Za-z0-9_-]{{16,}}(?:\.[\w-]+)*"),
    _forms("pypi-", rf"{_START}pypi-[A-Za-z0-9_-]{{30,}}"),
    _forms("xox", rf"{_START}xox[abceoprsd](?:\.xox[a-z])?-[A-Za-z0-9-]{{10,}}"),
    _forms("xapp-", rf"{_START}xapp-[A-Za-z0-9-]{{16,}}"),
    _forms("-us", r"(?:(?<![0-9a-z])|(?<=\\[nrt]))[0-9a-z]{32}-us[0-9]{1,2}(?![0-9A-Za-z])", back=32),
    _forms(
        "-u|--proxy-u",
        r"(?P<keep>(?:(?<![\w-])|(?<=\\[nrt]))(?:-u|--(?:proxy-)?user)"
        r"[ =][\"']?[^\s:\"'/]{1,100}:)(?![0-9]+\b)[^\s\"'`\\]{4,}",
    ),
    _forms("sq0", rf"{_START}sq0[a-z]{{3}}-[0-9A-Za-z\\_-]{{22,}}"),
    _forms("xai-|nvapi-|pplx-|tvly-|gocspx-|xkeysib-", rf"{_START}[A-Za-z]{{3,8}}-[A-Za-z0-9_-]{{20,}}"),
    _forms("age-secret-key-", rf"{_START}AGE-SECRET-KEY-1[0-9A-Z]{{50,}}"),
)
_UNDERSCORED = _all(
    _forms("k_", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}", back=1),
    _forms("gh", r"gh[pousr]_[A-Za-z0-9_]{20,}(?:[.-][A-Za-z0-9_-]+)*"),
    _forms("github_pat_", r"github_pat_[A-Za-z0-9_]{20,}"),
    _forms("hf_|npm_|gsk_|figd_|ntn_|sbp_|whsec_|r8_", rf"{_START}[a-z0-9]{{2,5}}_[A-Za-z0-9_-]{{20,}}"),
    _forms("pat_|lin_api_|lsv2_|dop_v1_|sntrys_|sntryu_|glsa_", r"[a-z0-9]{2,6}_[A-Za-z0-9_]{24,}"),
)
_DOTTED = _all(
    _forms("sg.", rf"{_START}SG\.[A-Za-z0-9_-]{{16,}}\.[A-Za-z0-9_-]{{16,}}"),
    _forms("ya29.", r"ya29\.[A-Za-z0-9_.-]{16,}"),
    _forms("hvs.|hvb.", rf"{_START}hv[sb]\.[A-Za-z0-9_-]{{20,}}"),
    _forms(
        ".",
        r"(?:[MNO]|(?<=[MNO])[A-Za-z0-9_-]|(?<=[MNO][A-Za-z0-9_-])[A-Za-z0-9_-])[A-Za-z0-9_-]{23}"
        r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
        back=24,
    ),
    _forms("eyj", rf"{_START}eyJ[A-Za-z0-9_=-]{{8,}}\.[A-Za-z0-9_=-]{{3,}}(?:\.[A-Za-z0-9_+/=-]*){{0,4}}"),
)
_TELEGRAM = _forms(":", r"[0-9]{8}:[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])", back=8)
_SCHEMED = _all(
    _forms(
        "bearer",
        r"(?P<keep>(?i:bearer))\s+(?:(?=\S{0,200}[0-9])[A-Za-z0-9._~+/=-]{8,}|[A-Za-z._~+/=-]{24,})",
    ),
    _forms("basic", r"(?P<keep>(?i:basic)\s)(?=[A-Za-z0-9+/]{0,200}[0-9=])[A-Za-z0-9+/=]{12,}"),
)
_CAPITALS = _forms(
    "",
    r"A(?:(?:KIA|SIA|BIA|CCA|3T[0-9A-Z])[0-9A-Z]{16}(?![0-9A-Z])|(?:(?<![A-Za-z0-9_-]A)|(?<=\\[bfnrtv]A))"
    r"(?:Iza[0-9A-Za-z_-]{30,}|C[0-9a-z]{32}(?![0-9A-Za-z])|KC(?=[A-Za-z0-9]{0,100}[0-9])[A-Za-z0-9]{10,}"
    r"|P[0-9A-F](?=[A-Za-z0-9]{0,100}[0-9])(?=[A-Z0-9]{0,100}[a-z])[A-Za-z0-9]{16,}))",
)
_TWILIO = _forms("sk", rf"{_START}SK[0-9a-z]{{32}}(?![0-9A-Za-z])")
_GITLAB_RUNNER = _forms("gr1348941", r"GR1348941[A-Za-z0-9_-]{20,}")

_AFTER_DASH = re.compile(r"-(?![0-9a-f]{4}-)[A-Za-z0-9_-]{12}")  # but not those of a UUID
_AFTER_UNDERSCORE = re.compile(r"_[A-Za-z0-9_]{15}")
_AFTER_DOT = re.compile(r"\.[A-Za-z0-9_-]{16}")
_AFTER_COLON = re.compile(r":[A-Za-z0-9_-]{35}")
_CAPITAL = _CAPITALS[""][0].pattern


def _may_hold(text: str, low: str) -> list[_Forms]:
    """Return the forms that a text, also given in lower case, can hold; quickly, since most texts hold none.

    To search for one sign takes a hundredth of the time that a word takes.
    """
    forms: list[_Forms] = []
    has_dash, has_slash, has_equals, has_colon = "-" in low, "/" in low, "=" in low, ":" in low
    if has_dash and ("private" in low or "putty" in low):
        forms.append(_BLOCKS)
    if has_slash and ("://" in low or "hook" in low):
        forms.append(_URLS)
    if len(low) >= _LEAST_FORM and ("bearer" in low or "basic" in low):
        forms.append(_SCHEMED)
    if (has_equals or has_colon or "--" in low or _may_be_beside(low)) and (
        ("key" in low or "token" in low or "pass" in low or "secret" in low or "auth" in low or "pw" in low)
        or ("cookie" in low or "contrase" in low)
        or (has_equals and ("?" in low or "&" in low or "#" in low or "aws" in low))
    ):
        forms.append(_NAMED)
        if has_equals and ("==" in low or "!=" in low):
            forms.append(_COMPARED)
    if len(low) < _LEAST_FORM:
        return forms
    if has_dash and (_AFTER_DASH.search(low) or "-u" in low):
        forms.append(_DASHED)
    if "_" in low and _AFTER_UNDERSCORE.search(low):
        forms.append(_UNDERSCORED)
    if "." in low and _AFTER_DOT.search(low):
        forms.append(_DOTTED)
    if has_colon and _AFTER_COLON.search(low):
        forms.append(_TELEGRAM)
    if "A" in text and _CAPITAL.search(text):
        forms.append(_CAPITALS)
    if "K" in text and "SK" in text:
        forms.append(_TWILIO)
    if "4" in text and "GR1348941" in text:
        forms.append(_GITLAB_RUNNER)
    return forms


def _may_be_beside(low: str) -> bool:
    """Check whether a name and its value can stand in a text with neither `=` nor `:` between them."""
    return (
        ";" in low
        or "<" in low
        or "(" in low
        or (len(low) > 25 and " " in low and any(map(low.__contains__, "0123456789")))
    )


def cut(text: str) -> tuple[str, int]:
    """Return a text with all that looks like a secret replaced, and how many places were."""
    if len(text) < _LEAST_FORM and text.isalnum():
        return text, 0
    low = text.lower()
    if not (all_forms := _may_hold(text, low)):
        return text, 0
    count = 0
    for forms in all_forms:
        for needle, of_needle in forms.items():
            if needle in low:
                clean, found = _cut(needle, of_needle, text, low)
                if found:
                    text, low, count = clean, clean.lower(), count + found
    return text, count


def _cut(needle: str, forms: list[Form], text: str, low: str) -> tuple[str, int]:
    if len(low) != len(text):  # some letter has two in lower case
        low = text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    places = _places(needle, forms, text, low) if needle else map(_place, forms[0].pattern.finditer(text))
    pieces, done, count = [], 0, 0
    for begin, end in places:
        pieces += [text[done:begin], REPLACEMENT]
        done, count = end, count + 1
    return "".join([*pieces, text[done:]]), count


def _place(match: _Match) -> tuple[int, int]:
    return match.end("keep") if "keep" in match.re.groupindex else match.start(), match.end()


_LEAD = re.compile(r"(?i)(?:api|access)[_ -]?\Z")


def _places(needle: str, forms: list[Form], text: str, low: str) -> Iterator[tuple[int, int]]:
    """Yield where secrets begin and end."""
    at, done = low.find(needle), 0
    while at >= 0:
        for pattern, judge, back in forms:
            match = pattern.match(text, at - back) if at - back >= done else None
            if match and (judge is None or judge(match)):
                begin, end = _place(match)
                if begin == at and needle == "key" and (lead := _LEAD.search(text, max(done, at - 7), at)):
                    begin = lead.start()
                more = _RUN_ON.match(text, end) if judge else None
                done = more.end() if more else end
                yield begin, done
                break
        at = low.find(needle, max(at + 1, done))
