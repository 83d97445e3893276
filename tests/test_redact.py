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
from calyx_logging.redact import REPLACEMENT, RedactSecrets, redacted_argv
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


MIXED = "Zx81" + "kQ7w" * 6
TEXTS = [
    (f"used ya29.{MIXED} here", "used [redacted] here"),
    (f"https://hooks.slack.com/services/T1/B2/{MIXED} failed", "https://hooks.slack.com/[redacted] failed"),
    (f"https://discord.com/api/webhooks/123/{MIXED}", "https://discord.com/api/webhooks/[redacted]"),
    (
        f"https://x.webhook.office.com/webhookb2/{MIXED}@1/IncomingWebhook/2/3",
        "https://x.webhook.office.com/[redacted]",
    ),
    (f"https://hooks.zapier.com/hooks/catch/1/{MIXED}", "https://hooks.zapier.com/[redacted]"),
    ("connect(user='joe', pass='hunter2')", "connect(user='joe', pass[redacted]')"),
    ("connect(db_pass='correct horse')", "connect(db_[redacted]')"),
    (f"Client(key='{MIXED}', n=2)", "Client(key='[redacted]', n=2)"),
    (f"Client(key={MIXED})", "Client(key=[redacted])"),
    ("postgres://joe:pa/ss@w'or\"d@db.host:5432/x", "postgres://[redacted]@db.host:5432/x"),
    ('{"url":"redis://:p@ss/1@host/0","mail":"a@b.c"}', '{"url":"redis://[redacted]@host/0","mail":"a@b.c"}'),
    (
        f"git clone https://{MIXED}@host/x and https://{MIXED}:@host/x",
        "https://[redacted]@host/x and https://[redacted]@",
    ),
    ("GET /x?page=2&sig=ab%2Fcd%3D&se=1", "GET /x?page=2&sig=[redacted]&se=1"),
    ("GET /callback?code=4a5b6c7d8e9f&state=x", "GET /callback?code=[redacted]&state=x"),
    ("https://h/cb#access_token=abcd&n=1", "https://h/cb#access_token=[redacted]&n=1"),
    (f"https://s3/x?X-Amz-Date=1&X-Amz-Signature={'0a' * 32}", "https://s3/x?X-Amz-Date=1&X-Amz-Signature=[redacted]"),
    ("prog --password hunter2 --n 5", "prog --password [redacted] --n 5"),
    ("prog --db-password 'hunter2' -v", "prog --db-password '[redacted]' -v"),
    ("curl -u joe:hunter2 https://host", "curl -u joe:[redacted] https://host"),
    ("Authorization: Token abc123def\nAccept: x", "Authorization: Token [redacted]\nAccept: x"),
    ("-H 'Authorization: Custom abc123def' x", "-H 'Authorization: Custom [redacted]' x"),
    ('Authorization: Digest username="a", response="0a1b"', "Authorization: Digest [redacted]"),
    (f"{{'Authorization': '{MIXED}', 'n': 1}}", "{'Authorization': '[redacted]', 'n': 1}"),
    (f"[('Authorization', 'Token {MIXED}'), ('n', 1)]", "[('Authorization', 'Token [redacted]'), ('n', 1)]"),
    ("Cookie: sid=abc; theme=dark\nAccept: x", "Cookie: [redacted]\nAccept: x"),
    ("Set-Cookie: sid=abc; Path=/; HttpOnly and more", "Set-Cookie: [redacted] and more"),
    (repr(b"Cookie: sid=abc\r\nAccept: x"), "b'Cookie: [redacted]\\r\\nAccept: x'"),
    (repr(f"line\n{OPENAI}\n".encode()), "b'line\\n[redacted]\\n'"),
    (f"AccountName=x;AccountKey={MIXED}==;Suffix=y", "AccountName=x;Account[redacted];Suffix=y"),
    ("SharedAccessKeyName=Root;SharedAccessKey=ab1=", "SharedAccessKeyName=Root;Shared[redacted]"),
    ("Server=x;User Id=sa;Pwd=hunter;Timeout=3", "Server=x;User Id=sa;[redacted];Timeout=3"),
    ('{"api_keys": ["k1", "k2"], "n": 1}', '{"[redacted]], "n": 1}'),
    ("'private_key_pem': 'abc', 'n': 1", "'private_[redacted]', 'n': 1"),
    ("<password>hunter2</password>", "<[redacted]</password>"),
    (f"the api key is {MIXED}, he said", "the [redacted], he said"),
    ("password=p&ssw0rd1 next", "[redacted] next"),
    ("password: 12345678", "[redacted]"),
    ("auth=('joe', 'hunter2'), timeout=3", "auth=[redacted], timeout=3"),
    ("İİ password=hunter2 İ api_key=abcdefg1 İ", "İİ [redacted] İ [redacted] İ"),
]


@pytest.mark.parametrize(("text", "left"), TEXTS)
def test_secrets_that_texts_name(text: str, left: str) -> None:
    """Announced secrets (by a name, a header, an option, an address) are taken out, and the text around them stays."""
    assert left in through(message=text)["message"]


def test_headers_and_settings_in_pairs() -> None:
    """Lists of lists and of tuples, of texts and of bytes, and dicts of name and value."""
    pairs = [["Authorization", "abc"], ("X-Api-Key", "abc"), (b"cookie", b"a=b"), ["password", "hunter2"], ["n", "1"]]
    clean = through(headers=pairs, env=[{"name": "DB_PASSWORD", "value": "abc"}, {"name": "HOME", "value": "/root"}])
    assert clean["headers"] == [
        ["Authorization", REPLACEMENT],
        ["X-Api-Key", REPLACEMENT],
        [b"cookie", REPLACEMENT],
        ["password", REPLACEMENT],
        ["n", "1"],
    ]
    assert clean["env"] == [{"name": "DB_PASSWORD", "value": REPLACEMENT}, {"name": "HOME", "value": "/root"}]
    assert clean["degraded"] == ["redacted: 5"]
    words = {"fields": ["password", "username"], "logprobs": [["token", -0.1], ["secret", "noun"]]}
    assert through(**words) == words


COMMAND_LINES = [
    (["prog", "--password", "hunter2", "-v"], ["prog", "--password", REPLACEMENT, "-v"]),
    (["prog", "--api-key=abc", "x"], ["prog", f"--api-key={REPLACEMENT}", "x"]),
    (["prog", "-password", "-abc"], ["prog", "-password", REPLACEMENT]),
    (["curl", "-u", "joe:hunter2", "-H", "X-Auth-Token: abc123"], ["curl", "-u", f"joe:{REPLACEMENT}", "-H", None]),
    (["curl", "--user=joe:hunter2"], ["curl", f"--user=joe:{REPLACEMENT}"]),
    (["sh", "-c", "prog --password hunter2"], ["sh", "-c", f"prog --password {REPLACEMENT}"]),
    (["env", "API_KEY=abcdef", "prog", OPENAI], ["env", REPLACEMENT, "prog", REPLACEMENT]),
    (["prog", "--key", MIXED, "--key", "server.pem"], ["prog", "--key", REPLACEMENT, "--key", "server.pem"]),
    (["prog", "--no-password", "x", "--token", "--verbose"], None),
    (["prog", "--max-tokens", "200", "--token", "5", "--password-file", "p.txt", "--password"], None),
    (["ssh-tool", "--signing-key", "keys/id", "--private-key=deploy.pem", "--client-key", "laptop"], None),
    (["ssh-tool", f"--signing-key={MIXED}"], ["ssh-tool", f"--signing-key={REPLACEMENT}"]),
    (["docker", "run", "-u", "1000:1000", "image"], None),
    ([], None),
]


@pytest.mark.parametrize(("argv", "left"), COMMAND_LINES)
def test_command_lines(argv: list[str], left: list[str | None] | None) -> None:
    """Values of options for secrets go, in the next argument or in the same one; in events and for other modules."""
    clean = redacted_argv(argv)
    assert clean == through(argv=argv)["argv"]
    for got, expected in zip(clean, left or argv, strict=True):
        assert got == expected or expected is None
    assert "hunter2" not in repr(clean)
    assert "abc123" not in repr(clean)


KEYS = [
    *("api_key", "Authorization", "token", "PASSWORD", "openai-api-key", "X-API-Key", "hf_token", "client.secret"),
    *(
        "api_keys",
        "ApiKeys",
        "private_key_pem",
        "passwords",
        "password2",
        "Set-Cookie",
        "HTTP_AUTHORIZATION",
        "db_pass",
    ),
    *("access_tokens", "AccountKey", "webhook_url", "X-Amz-Signature", "contraseña"),
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["some value", ["a", "b"], {"deep": 1}, b"bytes"])
def test_what_stands_under_such_a_name(key: str, value: Any) -> None:
    """A secret field's value is taken out whatever it is, also deep down; null and booleans stay."""
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
    f"commit {'07afff4e6d' * 4}, sha256 {'9f86d081' * 8}, cache key={'9f86d081' * 8}",
    "run 0191f8a2-7c3e-7b2a-9d1e-3f6a5b4c2d1e ended",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
    "the token budget, max_tokens=200, pad_token: <pad>, eos_token='</s>', pad_token=<pad>, token_type: bearer",
    "the password is usually eight characters, the secret of it, a pass: 12 of 15, pass=12 fail=3, first pass=ok",
    "api_key is None; key: value; keyboard=us; monkey=1; num_key_value_heads=8; primary_key=id; public_key: abcdefgh",
    "sort(key='name'), sorted(xs, key=lambda x: x.name), client(key='Qwen/Qwen2-7B-Instruct-GPTQ-Int4')",
    "https://host/path?page=2&code_name=x&code=200&key=name user@host, joe@example.com, git@github.com:org/repo.git",
    "http://localhost:8000/v1?x=a@b and git+ssh://git@github.com/org/repo.git@v1.2 and https://joe@host/x",
    "api_key = os.environ['API_KEY']\ntoken = get_token()\nself.password = password\nif token == expected_token:",
    "def login(user: str, password: str, api_key: str | None = None) -> None:\n    return self.token",
    'f"postgres://{user}:{password}@{host}/", "https://<user>:<password>@host", password="${PASSWORD}", token: %s',
    "usage: prog [--password PASSWORD] [--token TOKEN]; use the --password option; --tokenizer gpt2 --output /tmp/x",
    "authorization: required for all; a basic understanding; cookie: a small cake; Authorization: the process",
    "Traceback:\n  File \"/usr/lib/python3.11/secrets.py\", line 3, in get_token\nKeyError: 'token'",
    "| key | value |\n|-----|-------|\n| `token` | **secret** |\n\n# Passwords and keys\n\n- [keys](keys.md#api-key)",
    "provision --signing-key laptop-key; - `password`: optional password; secrets: which of them, auth = ('', '')",
    "headers['X-Token'] = self.credentials.token, secret_key=aws_secret_access_key, f'&X-Amz-Signature={signature}'",
    'AUTHORIZATION: Final[istr] = istr("Authorization")',
    "api_key_env=OPENAI_API_KEY, password_length: 12, secret_name=prod-db, PWD=/home/joe, password='***'",
    ["secret", "token", "password"],
    {"key": "results/2024/Case17.json", "keys": ["a"], "api_key_name": "main", "first_pass": "ok", "signature": "f(x)"},
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


HOSTILE = [
    *(
        "eyJ-",
        "eyJaaaaaaaaa.",
        "sk-",
        "pk-a",
        "bearer ",
        "basic a",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "xoxb-",
    ),
    *("token ", "token(", "token:(", "(token, '", "token=a_", "key=", "key:", "key a1", "api_key_", "key[1]=", "AIza-"),
    *(
        "password = ",
        "password=,",
        "password=a.",
        "password_a",
        "password='\\",
        'password="',
        "password={'",
        "secret>a",
    ),
    *(
        "secret['",
        "secret=${",
        "pass:",
        "pw:a",
        "pwd ",
        "auth=('",
        "authorization: a=",
        'authorization: a="',
        "cookie:",
    ),
    *(
        "cookie: a=b; ",
        "?key=:/",
        "?code=",
        "&a",
        "#token=",
        "--a",
        "--password ",
        "--key a",
        "-u a:",
        "aws key",
        "'aaaa'==",
    ),
    *(
        "://a:",
        "://a@",
        "://a:b@",
        "://a:b'c@",
        "://:'",
        "hooks.a.",
        "webhook/",
        "/with/key/",
        "softlayer.com/",
        "a1-us",
    ),
    *("glpat-", "ghp_", "pypi-", "hf_", "pat_", "SG.", "ya29.", "M.", f"M{'a' * 23}.aaaaaa.", "1", "12345678:", "AKIA"),
    *("AKC", "AP1", "AC0", "SK0", "GR1348941", "PuTTY-User-Key-File-2", "age-secret-key-", "contrase", "İpassword="),
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_each_form(piece: str) -> None:
    """A megabyte of one form is read while all other forms are announced, too."""
    for fill in (piece, f"{piece}a "):
        assert through(message=f"x = : - _ . / A SK 4 key 1 ? {fill * (1_000_000 // len(fill))}")


def test_texts_that_are_made_to_take_long() -> None:
    """Two megabytes of what begins like a form: each is looked through once (else this test would never end)."""
    for piece in ("eyJ-", "sk-", "bearer ", "-----BEGIN ", "token ", "password = ", "://a:", "AIza-", "xoxb-", "pk-a"):
        assert through(message=piece * (2_000_000 // len(piece)))


def test_near_the_recursion_limit_nothing_is_let_through(node: Node) -> None:
    """If the processor cannot be called, the fields are withheld and the line says so."""
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
    """A configuration names the processor with its arguments."""
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
    """A wrong option fails in dictConfig, with the reason."""
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
    """A secret is found whatever surrounds it, and nothing raises."""
    event = through(value=[value, {"x": f"{text} {secret} {text}"}], other=value)
    assert secret not in repr(event)
    assert "degraded" in event
