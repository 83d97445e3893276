"""RedactSecrets against detect-secrets: what that finds, in every place of an event, does not reach the event's line.

All examples are made by a generator of random numbers with a seed, so no text that looks like a secret is in this file.
"""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins import keyword
from detect_secrets.plugins.base import BasePlugin

from calyx_logging.events.event import encode
from calyx_logging.redact import RedactSecrets, redacted_argv

DETECTORS: dict[str, type[BasePlugin]] = {
    kind.__name__: kind for kind in get_mapping_from_secret_type_to_class().values()
}
logging.captureWarnings(False)  # detect-secrets switches it on when it is imported, for all tests of this process
LETTERS, DIGITS, LOWER = string.ascii_letters, string.digits, string.ascii_lowercase
WORD, HEX, URLSAFE = LETTERS + DIGITS, "0123456789abcdef", LETTERS + DIGITS + "_-"

PASSES = {
    "Base64HighEntropyString": "looks like the hash of a file, an id or data in base64; goes where a name is beside it",
    "HexHighEntropyString": "looks like a commit, the hash of a file or an id; goes where a name is beside it",
    "IPPublicDetector": "an address says where something ran, and opens nothing",
}
"""Detectors whose finds stay in the event, and why (docs/harness.md says the same)."""

STAYS = {
    "BEGIN RSA PRIVATE" + " KEY": "the line alone, without dashes, is prose about keys",
    "version AP5" + "abcdefgh1": "Artifactory's shortest passwords look like names",
    "mysql -p" + "hunter2": "`-p` means something else in every program",
    "clouapikey " + "abcdefgh" * 3: "letters alone, with nothing but a blank before them, are words",
    "Authorization: Custom " + "qwertyui": "letters alone, after a scheme that is none of the known ones, are words",
    "password=" + "abc": "less than four characters, without quotes",
}
"""What stays though one of the detectors, or a reader, may take it for a secret, and why."""


class Example(NamedTuple):
    """A text with a secret of one kind; `alone` is a secret that needs no name beside it."""

    text: str
    secret: str
    alone: bool = True


def drawn(random: Random, alphabet: str, length: int) -> str:
    """A random text that has a digit, a small letter and a capital where the alphabet does."""
    while True:
        text = "".join(random.choices(alphabet, k=length))
        kinds = (str.isdigit, str.islower, str.isupper)
        if all(any(map(kind, text)) or not any(map(kind, alphabet)) for kind in kinds) and text[-1] not in "-_":
            return text


def one(*parts: str) -> Example:
    return Example("used " + "".join(parts) + " for it", "".join(parts))


def assigned(names: str, value: str) -> Iterator[Example]:
    """The assignments that detect-secrets knows, to each of the names."""
    for name in names.split():
        for sign in ("=", ": ", ":= ", " => ", "::", "   "):
            for quote in ("", '"', "'"):
                if sign.strip() or any(map(str.isdigit, value)):
                    yield Example(f"{name}{sign}{quote}{value}{quote}", value, alone=False)


def artifactory(random: Random) -> Iterator[Example]:
    yield one("AKCp", drawn(random, WORD, 69))
    yield one("AKC", drawn(random, WORD, 12))
    yield one("AP", random.choice("0123456789ABCDEF"), drawn(random, WORD, 33))


def aws(random: Random) -> Iterator[Example]:
    for start in ("AKIA", "ASIA", "ABIA", "ACCA", "A3TX"):
        yield one(start, drawn(random, string.ascii_uppercase + DIGITS, 16))
    value = drawn(random, WORD + "/+", 40)
    for before in ("aws_secret_access_key = ", "aws_key: ", "AWS secret token is ", 'aws = {"pw": '):
        yield Example(f"{before}'{value}'", value, alone=False)


def azure(random: Random) -> Iterator[Example]:
    value = drawn(random, WORD + "/+", 86) + "=="
    yield Example(f"AccountName=x;AccountKey={value};EndpointSuffix=core.windows.net", value, alone=False)


def basic_auth(random: Random) -> Iterator[Example]:
    for password in (drawn(random, WORD, 8), drawn(random, LOWER, 8), drawn(random, WORD, 30)):
        for scheme in ("https", "postgres", "amqp", "git+https"):
            yield Example(f"{scheme}://joe:{password}@host:5432/path?x=1", password, alone=False)


def cloudant(random: Random) -> Iterator[Example]:
    for value in (drawn(random, HEX, 64), drawn(random, LOWER, 24)):
        for owner in ("cloudant", "cl", "clou"):
            names = [
                f"{owner}{dash}{word}" for dash in ("", "_", "-") for word in ("key", "pwd", "pw", "pass", "token")
            ]
            yield from assigned(" ".join([*names, f"{owner}apikey", f"{owner}_apikey", f"{owner}_password"]), value)
        yield Example(f"https://account:{value}@account.cloudant.com", value, alone=False)


def discord(random: Random) -> Iterator[Example]:
    for first, length in (("M", 23), ("N", 24), ("O", 25)):
        yield one(first, drawn(random, WORD, length), ".", drawn(random, WORD, 6), ".", drawn(random, URLSAFE, 27))


def github(random: Random) -> Iterator[Example]:
    for kind in "pousr":
        yield one(f"gh{kind}_", drawn(random, WORD, 36))


def gitlab(random: Random) -> Iterator[Example]:
    for kind, length in {
        "pat": 20,
        "dt": 20,
        "ft": 20,
        "soat": 40,
        "rt": 20,
        "imt": 25,
        "ptt": 40,
        "agent": 50,
    }.items():
        yield one(f"gl{kind}-", drawn(random, URLSAFE, length))
    yield one("GR", "1348941", drawn(random, URLSAFE, 20))
    yield one("glcbt-", "64_", drawn(random, URLSAFE, 20))
    yield one("gloas-", drawn(random, HEX, 64))


def ibm_cloud(random: Random) -> Iterator[Example]:
    value = drawn(random, URLSAFE, 44)
    names = "ibm_cloud_iam_api_key ibm-cloud-key cloud_iam_pwd ibm_iam_password ibmapikey iam_token cloud_pass ibm_pass"
    yield from assigned(f"{names} key pwd password pass token apikey", value)


def ibm_cos(random: Random) -> Iterator[Example]:
    names = (
        "secret_key secret_access_key ibm_cos_hmac_secret_key cos-secret-access-key ibmcos_secretkey secretaccesskey"
    )
    yield from assigned(names, drawn(random, HEX, 48))


def jwt(random: Random) -> Iterator[Example]:
    import base64

    def part(**claims: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    head = part(alg="HS256", typ="JWT")
    for claims in ({"sub": drawn(random, DIGITS, 10)}, {"n": 1}, {}):
        yield one(f"{head}.{part(**claims)}.", drawn(random, WORD, 43))
    yield one(f"{head}.{part(sub=drawn(random, WORD, 12))}")


def keywords(random: Random) -> Iterator[Example]:
    value = drawn(random, WORD, 12)
    bases = [base.replace("_?", sign) for base in keyword.DENYLIST for sign in (("", "_") if "_?" in base else ("",))]
    for base in bases:
        for name in (base, f"my_{base}", f"{base}_secure", f"{base}2", base.upper()):
            for form in (
                '{}: "{}"',
                "{} = '{}'",
                '{} == "{}"',
                '{} "{}";',
                '{} => "{}"',
                '"{}": "{}"',
                "['{}'] = '{}'",
            ):
                yield Example(form.format(name, value), value, alone=False)
            for form in ('{} := "{}"', "{}: {}", "{} = {}", '{}[] = "{}"', '{}[25] = @"{}"'):
                yield Example(form.format(name, value), value, alone=False)
        yield Example(f'"{value}" == my_{base}', value, alone=False)
        yield Example(f'std::string {base}("{value}");', value, alone=False)
        yield Example(f'{base}.assign("{value}",12);', value, alone=False)


def npm(random: Random) -> Iterator[Example]:
    uuid = "-".join(drawn(random, HEX, length) for length in (8, 4, 4, 4, 12))
    for value in ("npm_" + drawn(random, WORD, 36), uuid):
        yield Example(f"//registry.npmjs.org/:_authToken={value}", value, alone=value != uuid)


def openai(random: Random) -> Iterator[Example]:
    for start in ("sk-", "sk-proj-", "sk-svcacct-"):
        yield one(start, drawn(random, WORD, 20), "T3Blbk" + "FJ", drawn(random, WORD, 20))


def private_key(random: Random) -> Iterator[Example]:
    for kind in ("RSA ", "EC ", "DSA ", "OPENSSH ", ""):
        lines = "\n".join(drawn(random, WORD + "/+", 64) for _ in range(3))
        yield Example(f"-----BEGIN {kind}PRIVATE " + f"KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----\nrest", lines)
    lines = "\n".join(drawn(random, WORD + "/+", 64) for _ in range(3))
    yield Example("-----BEGIN PGP PRIVATE " + f"KEY BLOCK-----\n\n{lines}\n-----END PGP PRIVATE KEY BLOCK-----", lines)
    yield Example("---- BEGIN SSH2 ENCRYPTED PRIVATE " + f"KEY ----\n{lines}\n---- END SSH2 ENCRYPTED KEY ----", lines)
    yield Example("PuTTY-User-Key-" + f"File-2: ssh-rsa\nPrivate-Lines: 3\n{lines}\nPrivate-MAC: {'0a' * 20}\n", lines)


def pypi(random: Random) -> Iterator[Example]:
    yield one("pypi-", "AgEIcHlwaS5v" + "cmc", drawn(random, URLSAFE, 120))
    yield one("pypi-", "AgENdGVzdC5weXBp" + "Lm9yZw", drawn(random, URLSAFE, 120))


def slack(random: Random) -> Iterator[Example]:
    for kind in "abposr":
        yield one(f"xox{kind}-", drawn(random, DIGITS, 12), "-", drawn(random, WORD, 24))
    path = f"T{drawn(random, WORD, 9)}/B{drawn(random, WORD, 9)}/{drawn(random, WORD, 24)}"
    yield Example("post to https://hooks.slack" + f".com/services/{path} failed", path)


def softlayer(random: Random) -> Iterator[Example]:
    value = drawn(random, LOWER + DIGITS, 64)
    names = (
        "softlayer_api_key softlayer_key sl_key slapi_pass sl_password sl-token softlayer_pass sl_pwd softlayerapikey"
    )
    yield from assigned(names, value)
    yield Example(f"https://api.softlayer.com/soap/v3/{value}", value, alone=False)


def of_form(*parts: str | tuple[str, int]) -> Callable[[Random], Iterator[Example]]:
    """Examples of fixed texts and of drawn ones."""

    def examples(random: Random) -> Iterator[Example]:
        for _ in range(3):
            yield one(*(part if isinstance(part, str) else drawn(random, *part) for part in parts))

    return examples


def several(*kinds: Callable[[Random], Iterator[Example]]) -> Callable[[Random], Iterator[Example]]:
    return lambda random: (example for kind in kinds for example in kind(random))


EXAMPLES: dict[str, Callable[[Random], Iterator[Example]]] = {
    "ArtifactoryDetector": artifactory,
    "AWSKeyDetector": aws,
    "AzureStorageKeyDetector": azure,
    "BasicAuthDetector": basic_auth,
    "CloudantDetector": cloudant,
    "DiscordBotTokenDetector": discord,
    "GitHubTokenDetector": github,
    "GitLabTokenDetector": gitlab,
    "IbmCloudIamDetector": ibm_cloud,
    "IbmCosHmacDetector": ibm_cos,
    "JwtTokenDetector": jwt,
    "KeywordDetector": keywords,
    "MailchimpDetector": of_form((LOWER + DIGITS, 32), "-us", (DIGITS, 2)),
    "NpmDetector": npm,
    "OpenAIDetector": openai,
    "PrivateKeyDetector": private_key,
    "PypiTokenDetector": pypi,
    "SendGridDetector": of_form("SG.", (URLSAFE, 22), ".", (URLSAFE, 43)),
    "SlackDetector": slack,
    "SoftlayerDetector": softlayer,
    "SquareOAuthDetector": of_form("sq0csp-", (URLSAFE, 43)),
    "StripeDetector": several(of_form("sk_" + "live_", (WORD, 24)), of_form("rk_" + "live_", (WORD, 24))),
    "TelegramBotTokenDetector": several(
        of_form((DIGITS, 8), ":", (URLSAFE, 35)), of_form((DIGITS, 10), ":AA", (URLSAFE, 33))
    ),
    "TwilioKeyDetector": several(of_form("AC", (HEX, 32)), of_form("SK", (HEX, 32))),
}

PLACES_OF_A_TEXT: dict[str, Callable[[str], dict[str, Any]]] = {
    "message": lambda text: {"message": text},
    "a field": lambda text: {"message": "m", "note": text},
    "nested": lambda text: {"message": "m", "data": {"rows": [{"n": 1, "cell": (1, [text])}]}},
    "an exception": lambda text: {
        "message": "m",
        "error": ValueError(text),
        "exception": [{"type": "E", "value": text}],
    },
    "a printed line": lambda text: {"message": f"\x1b[32m12:00 INFO\x1b[0m worker 3: {text}\n"},
    "JSON in a text": lambda text: {"message": json.dumps({"a": [text]})},
    "a repr": lambda text: {"message": repr({"a": [text]})},
    "the repr of bytes": lambda text: {"message": repr(f"line\n{text}\nline".encode())},
    "bytes": lambda text: {"message": "m", "body": text.encode()},
    "an argument": lambda text: {"message": "m", "argv": ["prog", "--note", text]},
}
PLACES_OF_A_NAMED_VALUE: dict[str, Callable[[str], dict[str, Any]]] = {
    "a field": lambda value: {"message": "m", "api_key": value},
    "nested": lambda value: {"message": "m", "data": [{"db": {"password": value, "n": 1}}]},
    "the parameter of a URL": lambda value: {"message": f"GET https://host/x?page=2&access_token={value}&n=1"},
    "the signature of a URL": lambda value: {"message": f"GET https://host/x?sig={value}"},
    "the user of a URL": lambda value: {"message": f"cloning https://joe:{value}@host.example/x"},
    "a dict of headers": lambda value: {
        "message": "m",
        "headers": {"Authorization": f"Token {value}", "X-Api-Key": value},
    },
    "a list of headers": lambda value: {"message": "m", "headers": [["Accept", "*/*"], ["Authorization", value]]},
    "pairs of headers": lambda value: {"message": "m", "headers": (("Accept", "*/*"), ("x-api-key", value))},
    "headers of ASGI": lambda value: {
        "message": "m",
        "headers": [(b"accept", b"*"), (b"cookie", f"a={value}".encode())],
    },
    "names and values": lambda value: {"message": "m", "env": [{"name": "DB_PASSWORD", "value": value}]},
    "a header": lambda value: {"message": f"> Authorization: Token {value}\n> Accept: */*"},
    "a header of another scheme": lambda value: {"message": f"curl -H 'Authorization: Custom 0{value}' https://host"},
    "a header's repr": lambda value: {"message": repr([("Authorization", f"Bearer {value}"), ("Accept", "*/*")])},
    "a cookie": lambda value: {"message": f"Set-Cookie: session={value}; Path=/; HttpOnly"},
    "two arguments": lambda value: {"message": "m", "argv": ["prog", "--password", value, "-v"]},
    "one argument": lambda value: {"message": "m", "argv": ["prog", f"--api-key={value}", "-v"]},
    "a command line": lambda value: {"message": f"prog --password {value} -v"},
    "a list's repr": lambda value: {"message": repr(["prog", "--password", value, "-v"])},
}
redact = RedactSecrets()


def line_of(fields: dict[str, Any]) -> str:
    return encode(redact(None, "info", dict(fields))).decode()


def examples_of(name: str) -> list[Example]:
    return list(EXAMPLES[name](Random(name)))


def is_detected(name: str, example: Example) -> bool:
    """Whether the detector finds the example, as it looks for it in a file of any type."""
    detector = DETECTORS[name]()
    if isinstance(detector, keyword.KeywordDetector):
        tables = [None, *keyword.REGEX_BY_FILETYPE.values()]
        return any(
            example.secret in found for table in tables for found in detector.analyze_string(example.text, table)
        )
    return any(detector.analyze_string(example.text))


def test_every_detector_has_examples_or_a_reason() -> None:
    """A detector that a new version brings fails here, until one of the tables has it."""
    assert set(DETECTORS) == set(EXAMPLES) | set(PASSES)
    assert not set(EXAMPLES) & set(PASSES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_examples_are_what_the_detector_finds(name: str) -> None:
    """Else they would show nothing."""
    for example in examples_of(name):
        assert is_detected(name, example), example


@pytest.mark.parametrize("place", sorted(PLACES_OF_A_TEXT))
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_text_with_a_secret(name: str, place: str) -> None:
    """Each detector's secret is found with the name beside it, if it needs one."""
    for example in examples_of(name):
        parts = example.secret.split("\n")
        line = line_of(PLACES_OF_A_TEXT[place](example.text))
        assert not [part for part in parts if part in line], (example, line)


@pytest.mark.parametrize("place", sorted(PLACES_OF_A_NAMED_VALUE))
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"PrivateKeyDetector"}))
def test_a_secret_where_the_place_says_that_it_is_one(name: str, place: str) -> None:
    """A secret is taken out whatever its form."""
    for secret in {example.secret for example in examples_of(name)}:
        line = line_of(PLACES_OF_A_NAMED_VALUE[place](secret))
        assert secret not in line, (secret, line)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_command_line(name: str) -> None:
    """A secret is taken out of command lines as other modules write them."""
    for text, secret, alone in examples_of(name):
        given = [
            "prog",
            "--password",
            secret,
            f"--token={secret}",
            text,
            *([secret] if alone and " " not in text else []),
        ]
        clean = redacted_argv(given)
        assert len(clean) == len(given)
        assert not [part for part in secret.split("\n") if part in repr(clean)], clean


@pytest.mark.parametrize("name", sorted(PASSES))
def test_what_passes(name: str) -> None:
    """The tables tell the truth; beside a name it goes."""
    random = Random(name)
    octets = ".".join(str(random.randrange(11, 99)) for _ in range(4))
    value = {"H": drawn(random, HEX, 40), "B": drawn(random, WORD + "/+", 40), "I": octets}[name[0]]
    text = f"found '{value}' here"
    assert any(DETECTORS[name]().analyze_string(text))
    assert value in line_of({"message": text})
    assert value not in line_of({"message": f"password='{value}'"})


@pytest.mark.parametrize("text", sorted(STAYS))
def test_what_stays(text: str) -> None:
    """Each with its reason."""
    assert STAYS[text]
    assert text in line_of({"message": text})
