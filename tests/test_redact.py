"""RedactSecrets: nothing that looks like a secret reaches the disk, and what was taken out is counted."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import logging
import logging.config
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import EventFormatter, Node
from calyx_logging.errors import ConfigError
from calyx_logging.events.event import encode
from calyx_logging.redact import REPLACEMENT, RedactSecrets
from conftest import close_logging, config, events_of

Configure = Callable[..., logging.Logger]
redact = RedactSecrets()


def through(**fields: Any) -> dict[str, Any]:
    return dict(redact(None, "info", dict(fields)))


OPENAI = "sk-proj-" + "Ab3" * 12
SECRETS = {
    "openai": OPENAI,
    "anthropic": "sk-ant-api03-" + "x1Y-" * 12,
    "github": "ghp_" + "a1B2" * 9,
    "github, fine": "github_pat_" + "a1B2_" * 9,
    "gitlab": "glpat-" + "a1B2" * 5,
    "hugging face": "hf_" + "aB" * 17,
    "slack": "xoxb-123456789012-abcdefghij",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIza" + "Sy0" * 12,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "stripe": "sk_live_" + "a1B2" * 6,
    "npm": "npm_" + "a1B2" * 9,
    "pypi": "pypi-" + "AgEI" * 12,
}


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_common_forms_of_keys(kind: str) -> None:
    """Alone, in the middle of a text, in a key, deep down."""
    secret = SECRETS[kind]
    event = through(
        message=f"used {secret}, then failed", deep=[{"x": ({"y": secret},)}], **{secret: 1}, named={secret: 2}
    )
    assert secret not in repr(event)
    assert event["message"] == f"used {REPLACEMENT}, then failed"
    assert event["degraded"] == ["redacted: 4"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer[redacted]"),
        ("basic dXNlcjpwYXNzd29yZA==", "basic [redacted]"),
        ("postgres://user:hunter2@db/x", "postgres://[redacted]@db/x"),
        ("run --api-key=abcdef123 --n 5", "run [redacted] --n 5"),
        ('{"password": "hunter22"}', '{"[redacted]"}'),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- rest", "[redacted] rest"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "[redacted]"),
    ],
)
def test_headers_addresses_settings_and_key_blocks(text: str, left: str) -> None:
    """Text beside them stays readable."""
    assert left in through(message=text)["message"].replace("--[redacted]", "[redacted]")


KEYS = ["api_key", "Authorization", "token", "PASSWORD", "openai-api-key", "X-API-Key", "hf_token", "client.secret"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["some value", ["a", "b"], {"deep": 1}, b"bytes"])
def test_what_stands_under_such_a_name(key: str, value: Any) -> None:
    """Whatever it is; also deep down. Null and booleans stay."""
    event = through(**{key: value}, headers=[{key: value, "n": 1}])
    assert event[key] == REPLACEMENT
    assert event["headers"] == [{key: REPLACEMENT, "n": 1}]
    assert event["degraded"] == ["redacted: 2"]
    assert through(**{key: None}) == {key: None}


def test_words_of_language_models_stay() -> None:
    """Tokens are counted and listed by every harness."""
    fields = {
        "max_tokens": 100,
        "prompt_tokens": 7,
        "tokens": ["a", "b"],
        "logprobs": [{"token": " the", "logprob": -0.1}, {"token": 7}],
        "eos_token": "<|endoftext|>",
        "secretary": "x",
        "author": "y",
        "keys": ["a"],
        "monkey": "z",
        "message": "token: 12, tokens = 100, password: None, the token is the unit, api_key=",
        "sk": "sk-short",
    }
    assert through(**fields) == fields


HARMLESS = [
    "basic understanding of it; Basic comprehension",
    "unexpected token: import",
    "bearer transportation, the bearer of this",
    "sk-learn-based-classification",
    "token: the, key: value, secretary: x",
    "https://example.com:8080/path@version",
    "task-based tokens=5 keys: [1]",
    [[[[[["deep"]]]]]],
]


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_what_only_looks_a_little_like_it_stays(value: Any) -> None:
    """Prose, names of packages, addresses without a password; nesting of any depth."""
    assert through(message="m", value=value) == {"message": "m", "value": value}
    deep: Any = "leaf"
    for _ in range(300):
        deep = [deep]
    assert through(value=deep) == {"value": deep}


@pytest.mark.parametrize(
    "text",
    [
        "api_key=12345678-9abc-4def-8123-456789abcdef",
        "password=2024-Secret!",
        "secret=true-love-99",
        '{"outer": "{\\"api_key\\": \\"abcdef123456\\"}"}',
        'password="correct horse battery"',
        "password: hunter",
        "token = abcdefgh",
        "Authorization: Bearer abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_settings_of_every_kind(text: str) -> None:
    """No part of the value stays."""
    left = through(message=text)["message"]
    for part in ("9abc", "2024", "love", "abcdef", "horse", "battery", "hunter"):
        assert part not in left


def test_texts_that_are_made_to_take_long() -> None:
    """Two megabytes of what begins like a form: each is looked through once (else this test would never end)."""
    for piece in ("eyJ-", "sk-", "bearer ", "-----BEGIN ", "token ", "password = ", "://a:", "AIza-", "xoxb-", "pk-a"):
        assert through(message=piece * (2_000_000 // len(piece)))


def test_near_the_recursion_limit_nothing_is_let_through(node: Node) -> None:
    """Where the processor cannot be called the fields are withheld, and the line says so."""
    settings = config(node)
    settings["formatters"]["event"]["processors"] = ["calyx_logging.redact.RedactSecrets"]
    logging.config.dictConfig(settings)
    logger = logging.getLogger("harness")

    def deeper() -> None:
        logger.info("called with Bearer abcdefgh12345678", extra={"n": 1})
        deeper()

    for _ in range(3):
        with pytest.raises(RecursionError):
            deeper()
    close_logging()
    assert all(b"abcdefgh1234" not in path.read_bytes() for path in node.outbox.glob("*.jsonl"))


def test_the_callers_objects_are_not_changed() -> None:
    """A copy where something is replaced, the very object where nothing is."""
    fields = {"config": {"api_key": OPENAI, "list": [OPENAI]}, "clean": {"a": [1, (2, 3)]}}
    before = copy.deepcopy(fields)
    event = through(**fields)
    assert fields == before
    assert event["clean"] is fields["clean"]
    assert event["config"] == {"api_key": REPLACEMENT, "list": [REPLACEMENT]}


@dataclasses.dataclass
class Settings:
    """Things that harnesses log whole."""

    api_key: str
    n: int = 1


class Name(enum.StrEnum):
    """Keys of a harness's own."""

    KEY = "api_key"


class Loud:
    """Its repr tells a secret."""

    def __repr__(self) -> str:
        return f"Loud({OPENAI})"


class Broken(dict[str, Any]):
    """Cannot be looked into."""

    def items(self) -> Any:
        raise RuntimeError("no")

    def keys(self) -> Any:
        raise RuntimeError("no")

    __iter__ = keys  # type: ignore[assignment]


def test_objects_that_become_json_only_later() -> None:
    """Dataclasses, reprs, sets, bytes, exceptions, subclasses, cycles; what cannot be looked into goes whole."""
    cycle: list[Any] = [OPENAI]
    cycle.append(cycle)
    event = through(
        settings=Settings(OPENAI),
        loud=Loud(),
        some={OPENAI},
        data=OPENAI.encode(),
        error=ValueError(OPENAI),
        cycle=cycle,
        clean=Settings("x"),
        odd=Broken(x=OPENAI),
        packed=collections.defaultdict(list, {"h": b"Bearer abcdefgh12345678"}),
        viewed={"x": memoryview(OPENAI.encode())},
        by_enum={Name.KEY: "hunter2"},
        by_bytes={b"api_key": "hunter2"},
    )
    assert "hunter2" not in repr(event)
    assert "Bearer a" not in repr(event)
    assert OPENAI not in encode(event).decode()
    assert event["settings"] == {"api_key": REPLACEMENT, "n": 1}
    assert event["clean"] == {"api_key": REPLACEMENT, "n": 1}
    assert REPLACEMENT in event["odd"]


def test_nothing_reaches_the_disk(node: Node, configure: Configure) -> None:
    """One line switches it on; messages, arguments, exceptions, contexts and dict messages are looked through."""
    settings = config(node)
    settings["formatters"]["event"]["processors"] = ["calyx_logging.redact.RedactSecrets"]
    logging.config.dictConfig(settings)
    logger = logging.getLogger("harness")
    logger.info("key %s", OPENAI, extra={"headers": {"Authorization": "abc"}})
    logger.info({"message": "dict", "level": {"password": "abcdefgh"}})
    try:
        try:
            raise KeyError(OPENAI)
        except KeyError as error:
            error.add_note(f"with {OPENAI}")
            raise ValueError(f"bad {OPENAI}") from error
    except ValueError:
        logger.exception("failed", stack_info=True)
    logger.info("clean", extra={"n": 1})
    close_logging()
    data = b"".join(path.read_bytes() for path in node.outbox.glob("*.jsonl"))
    assert OPENAI.encode() not in data
    assert b"abcdefgh" not in data
    events = events_of(node.outbox)
    assert [event.get("degraded") for event in events] == [
        ["redacted: 2"],
        ["redacted: 1"],
        ["redacted: 3"],
        None,
    ]
    assert events[1]["shadowed"] == {"level": {"password": REPLACEMENT}}
    assert events[2]["exception"][0]["value"] == f"bad {REPLACEMENT}"


def test_more_keys_and_patterns(node: Node) -> None:
    """By configuration, with arguments."""
    settings = config(node)
    settings["formatters"]["event"]["processors"] = [
        {"()": "calyx_logging.redact.RedactSecrets", "keys": ["Employee-No"], "patterns": [r"\bEMP\d+\b"]}
    ]
    logging.config.dictConfig(settings)
    logging.getLogger("harness").info("by EMP123", extra={"employee_no": 7})
    close_logging()
    (event,) = events_of(node.outbox)
    assert (event["message"], event["employee_no"]) == (f"by {REPLACEMENT}", REPLACEMENT)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keys": "api"}, "give a list of texts"),
        ({"keys": [1]}, "give a list of texts"),
        ({"patterns": 3}, "give a list of texts"),
        ({"patterns": ["("]}, "no regular expression"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    """In dictConfig, with the reason."""
    with pytest.raises(ConfigError, match=says):
        RedactSecrets(**options)
    with pytest.raises(ConfigError, match=says):
        EventFormatter(processors=[{"()": "calyx_logging.redact.RedactSecrets", **options}])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=10,
)


@given(values, st.text(), st.sampled_from(sorted(SECRETS.values())))
def test_a_secret_anywhere(value: Any, text: str, secret: str) -> None:
    """Whatever surrounds it; nothing raises."""
    event = through(value=[value, {"x": f"{text} {secret} {text}"}], other=value)
    assert secret not in repr(event)
    assert "degraded" in event
