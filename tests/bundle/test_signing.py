"""SSH signatures: interchangeable with stock ssh-keygen, by the hub's policy, and clear when they cannot be had."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import make_bundle, make_key, make_node
from calyx_logging import Node
from calyx_logging.bundle.signers import add_line, is_listed, read_public_key, signer_line, signers_of
from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, RECEIPT_NAMESPACE, sign, verify_signature
from calyx_logging.errors import ConfigError, SignatureError, StorageError
from calyx_logging.hub.importer import Policy, import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions
from conftest import telemetry, tree

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
NEEDS_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX sessions and permissions")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


def allow(path: Path, principal: str, key: Path, options: str = "") -> Path:
    """Write a file of signers by hand."""
    line = f"{principal} {options} {key.with_suffix('.pub').read_text()}"
    path.write_text((path.read_text() if path.exists() else "") + line)
    return path


def stock(*arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", "-Y", *arguments], input=data, capture_output=True, check=False)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_our_signatures_are_stock_ones(tmp_path: Path, kind: str) -> None:
    """Stock ssh-keygen verifies ours, and we verify its; other bytes, names and namespaces are refused by both."""
    key = make_key(tmp_path / "key", kind=kind)
    signers = allow(tmp_path / "signers", "n-1", key)
    data, ours = b"some bytes\n", tmp_path / "ours.sig"
    ours.write_bytes(sign(data, str(key), MANIFEST_NAMESPACE))
    done = stock("verify", "-f", str(signers), "-I", "n-1", "-n", "calyx-telemetry", "-s", str(ours), data=data)
    assert done.returncode == 0, done.stderr
    theirs = stock("sign", "-f", str(key), "-n", "calyx-telemetry", data=data).stdout
    fingerprint = read_public_key(key.with_suffix(".pub")).fingerprint
    listed = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True).stdout
    assert fingerprint in listed
    for armored in (theirs, ours.read_bytes()):
        said = verify_signature(data, armored, signers=signers, principal="n-1", namespace=MANIFEST_NAMESPACE)
        assert said.endswith(fingerprint)
        for other in (
            {"data": b"other bytes"},
            {"principal": "n-2"},
            {"namespace": RECEIPT_NAMESPACE},
            {"signature": b"junk"},
            {"signature": b""},
            {"signature": b"\0" * 2_000_000},
        ):
            arguments = {"data": data, "signature": armored, "principal": "n-1", "namespace": MANIFEST_NAMESPACE}
            with pytest.raises(SignatureError):
                verify_signature(signers=signers, **{**arguments, **other})


def test_keys_that_are_not_valid_any_more(tmp_path: Path, key: Path) -> None:
    """Expired, not yet valid and revoked keys are each reported."""
    data = b"x"
    armored = sign(data, str(key), MANIFEST_NAMESPACE)
    for options, said in (('valid-before="20200101"', "expired"), ('valid-after="20990101"', "not yet valid")):
        signers = allow(tmp_path / said.replace(" ", "-"), "n-1", key, options)
        with pytest.raises(SignatureError, match=said):
            verify_signature(data, armored, signers=signers, principal="n-1", namespace=MANIFEST_NAMESPACE)
    signers, revoked = allow(tmp_path / "signers", "n-1", key), tmp_path / "revoked"
    revoked.write_text(key.with_suffix(".pub").read_text())
    with pytest.raises(SignatureError, match="revoked"):
        verify_signature(data, armored, signers=signers, principal="n-1", namespace=MANIFEST_NAMESPACE, revoked=revoked)


@NEEDS_POSIX
def test_keys_that_cannot_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with what to do about it."""
    locked = make_key(tmp_path / "locked", passphrase="secret")
    script = "import sys; from calyx_logging.bundle.signing import sign; sign(b'x', sys.argv[1], 'n')"
    done = subprocess.run(
        [sys.executable, "-c", script, str(locked)], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert "ConfigError" in done.stderr
    assert "ssh-agent" in done.stderr.splitlines()[-1]
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(ConfigError, match="there is no such key"):
        sign(b"x", str(tmp_path / "none"), "n")
    with pytest.raises(ConfigError, match="ssh-agent"):
        sign(b"x", str(locked.with_suffix(".pub")), "n")
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "junk").chmod(0o600)
    with pytest.raises(ConfigError, match="name an OpenSSH private key"):
        sign(b"x", str(tmp_path / "junk"), "n")
    loose = make_key(tmp_path / "loose")
    loose.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        sign(b"x", str(loose), "n")


@NEEDS_POSIX
@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")
def test_a_key_that_an_agent_has(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private half is nowhere on the disk."""
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    for name, value in re.findall(r"(SSH_\w+)=([^;]+);", started):
        monkeypatch.setenv(name, value)
    try:
        subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True)
        key.unlink()
        armored = sign(b"x", str(key.with_suffix(".pub")), MANIFEST_NAMESPACE)
    finally:
        subprocess.run(["ssh-agent", "-k"], check=False, capture_output=True)
    signers = allow(tmp_path / "signers", "n-1", key)
    assert verify_signature(b"x", armored, signers=signers, principal="n-1", namespace=MANIFEST_NAMESPACE)


def test_without_ssh_keygen(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with what to install, for signing and for verifying; nothing is taken in."""
    store, bundle = hub(tmp_path), make_bundle(make_node(tmp_path, "n-1"), range(2), options=signing(key))
    allow(store.signers, "n-1", key)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install OpenSSH"):
        sign(b"x", str(key), "n")
    with pytest.raises(ConfigError, match="install OpenSSH"):
        import_bundle(store, bundle)
    assert store.nodes() == []


def test_public_keys(tmp_path: Path, key: Path) -> None:
    """A private key is refused before anything of it is written anywhere."""
    with pytest.raises(ConfigError, match=r"name key\.pub"):
        read_public_key(key)
    for junk in ("", "junk", "ssh-ed25519 KEY", "ssh-rsa " + key.with_suffix(".pub").read_text().split()[1]):
        (tmp_path / "junk.pub").write_text(junk)
        with pytest.raises(ConfigError, match="no OpenSSH public key"):
            read_public_key(tmp_path / "junk.pub")


@pytest.mark.parametrize(
    ("line", "name", "has"),
    [
        ("n-1 ssh-ed25519 KEY", "n-1", True),
        ("n-1 ssh-ed25519 KEY", "N-1", True),
        ("n-1 ssh-ed25519 KEY", "n-10", False),
        ("n-* ssh-ed25519 KEY", "n-10", True),
        ('"n-1,m-?" ssh-ed25519 KEY', "m-7", True),
        ("!n-3,n-* ssh-ed25519 KEY", "n-3", False),
        ("# n-1 ssh-ed25519 KEY", "n-1", False),
        ('m-1,n-* namespaces="a b",valid-before="20990101" ssh-ed25519 KEY a comment', "n-1", True),
        ("", "n-1", False),
    ],
)
def test_who_has_a_key(tmp_path: Path, line: str, name: str, has: bool) -> None:
    """OpenSSH's patterns, and no other spelling of a node gets past its key."""
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
    (tmp_path / "signers").write_text(f"\n{line.replace('KEY', blob)}\r\n")
    assert signers_of(tmp_path / "signers", name) is has
    assert not signers_of(tmp_path / "none", name)


def test_adding_lines(tmp_path: Path, key: Path) -> None:
    """Once each, after what is there, with or without a newline at its end."""
    path, public = tmp_path / "new" / ".allowed_signers", read_public_key(key.with_suffix(".pub"))
    assert add_line(path, signer_line("n-1", public, "ns"))
    path.write_text(path.read_text().rstrip("\n") + "\n# by hand")
    assert not add_line(path, signer_line("n-1", public, "ns"))
    assert add_line(path, signer_line("n-2", public, "ns"))
    lines = path.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["n-1", "#", "n-2"]
    assert lines[0] == f'n-1 namespaces="ns" {key.with_suffix(".pub").read_text().strip()}'


# ------------------------------------------------------------------ at the hub


def hub(folder: Path) -> Store:
    (folder / "hub").mkdir()
    store = Store(folder / "hub")
    store.folder.mkdir(parents=True)
    return store


def signing(key: Path) -> ExportOptions:
    return ExportOptions(sign_with=str(key))


def test_the_hubs_policy(tmp_path: Path, key: Path) -> None:
    """Unsigned where nobody has a key; signed ones of those that have; with --require-signature nothing else."""
    store, node = hub(tmp_path), make_node(tmp_path, "n-1")
    plain = make_bundle(node, range(2))
    signed = make_bundle(node, range(2, 4), second=10, options=signing(key))
    strict = Policy(require_signature=True)
    for bundle in (plain, signed):
        result = import_bundle(store, bundle, policy=strict)
        assert (result.outcome, result.faults[0].kind) == ("refused", "signature")
        said = "calyx-telemetry trust n-1" if bundle == signed else "it is not signed"
        assert said in result.faults[0].found
    early = import_bundle(store, signed, dry_run=True)
    assert (early.outcome, early.signed_by) == ("would be imported", None)
    assert "its signature was not checked" in early.warnings[0]
    allow(store.signers, "n-1", key)
    result = import_bundle(store, signed, policy=strict)
    assert (result.outcome, result.faults) == ("imported", [])
    assert result.signed_by is not None
    result = import_bundle(store, plain)
    assert (result.outcome, result.faults[0].found) == ("refused", "it is not signed")
    assert import_bundle(store, make_bundle(make_node(tmp_path, "n-2"), range(1))).outcome == "imported"


def test_forged_signatures(tmp_path: Path, key: Path) -> None:
    """Another node's key, another manifest's signature, an emptied one, a stripped one, another spelling."""
    store, other = hub(tmp_path), make_key(tmp_path / "other")
    allow(store.signers, "n-1", key)
    allow(store.signers, "n-2", other)
    node = make_node(tmp_path, "n-1")
    good = make_bundle(node, range(2), options=signing(key))
    later = make_bundle(node, range(2, 4), second=10, options=signing(key))
    by_other = make_bundle(make_node(tmp_path / "2", "n-1"), range(5, 6), options=signing(other))
    cases = {
        "by another node's key": (by_other, None),
        "of another manifest": (good, (later / "manifest.json.sig").read_bytes()),
        "empty": (good, b""),
        "junk": (good, b"-----BEGIN SSH SIGNATURE-----\njunk\n-----END SSH SIGNATURE-----\n"),
        "a receipt's": (good, sign((good / "manifest.json").read_bytes(), str(key), RECEIPT_NAMESPACE)),
    }
    for name, (bundle, signature) in cases.items():
        forged = tmp_path / "forged" / name
        shutil.copytree(bundle, forged)
        if signature is not None:
            (forged / "manifest.json.sig").write_bytes(signature)
        result = import_bundle(store, forged)
        assert (result.outcome, [fault.kind for fault in result.faults]) == ("refused", ["signature"]), name
    spelled = make_bundle(make_node(tmp_path / "3", "N-1"), range(1))
    assert import_bundle(store, spelled).outcome == "refused"
    assert store.nodes() == []
    assert import_bundle(store, good).outcome == "imported"


def test_an_export_that_cannot_be_signed_changes_nothing(tmp_path: Path) -> None:
    """A key that fails leaves no bundle and no index; with a key that works the chunk is exported."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(2))
    before = tree(node.exports)
    with pytest.raises(ConfigError, match="no such key"):
        make_bundle(node, range(2, 3), second=10, options=ExportOptions(sign_with=str(tmp_path / "none")))
    assert tree(node.exports) == before
    key = make_key(tmp_path / "key")
    bundle = make_bundle(node, range(3, 4), second=10, options=signing(key))
    assert len(list(bundle.glob("*.jsonl"))) == 2


def test_the_commands(tmp_path: Path, key: Path) -> None:
    """A key named at provisioning signs every export; --no-sign does not; trust, revoke, and what they say."""
    root, store = tmp_path / "node", hub(tmp_path)
    root.mkdir()
    (tmp_path / "text").write_text("no key")
    for wrong in ("none", "text"):
        assert telemetry("provision", "n-1", "--root", root, "--signing-key", tmp_path / wrong).returncode == 2
        assert list(root.iterdir()) == []
    assert telemetry("provision", "n-1", "--root", root, "--signing-key", key).returncode == 0
    assert telemetry("smoke-test", "--root", root).returncode == 0
    bundles = sorted((root / "exports/telemetry_exports/n-1").iterdir())
    assert (bundles[0] / "manifest.json.sig").exists()
    make_bundle(Node.find(root), range(2), second=10**9, options=ExportOptions(unsigned=True))
    (plain,) = set((root / "exports/telemetry_exports/n-1").iterdir()) - set(bundles)
    assert not (plain / "manifest.json.sig").exists()
    done = telemetry("trust", "n-1", key, "--root", store.root)
    assert (done.returncode, "is a private key" in done.stderr) == (2, True)
    public = key.with_suffix(".pub")
    done = telemetry("trust", "n-1", public, "--root", store.root)
    assert (done.returncode, "is trusted for node n-1" in done.stdout) == (0, True), done.stderr
    assert "already" in telemetry("trust", "n-1", public, "--root", store.root).stdout
    done = telemetry("import", bundles[0], "--require-signature", "--root", store.root, "--json")
    assert done.returncode == 0, done.stdout
    assert telemetry("trust", "n-1", public, "--revoke", "--root", store.root).returncode == 0
    done = telemetry("import", bundles[0], "--root", store.root)
    assert (done.returncode, "revoked in" in done.stdout) == (1, True)
    done = telemetry("trust", "n-1", public, "--root", store.root)
    assert (done.returncode, "this key is revoked" in done.stderr) == (2, True)
    done = telemetry("trust", "N-1", make_key(tmp_path / "2").with_suffix(".pub"), "--root", store.root)
    assert (done.returncode, "another spelling" in done.stderr) == (2, True)
    done = telemetry("trust", "n-2", make_key(tmp_path / "3").with_suffix(".pub"), "--root", store.root)
    assert (done.returncode, "no bundle of node n-2 is here yet; here are n-1" in done.stderr) == (0, True)
    done = telemetry("trust", "hub", public, "--root", root)
    assert (done.returncode, "say --hub" in done.stderr, (root / "telemetry/federated").exists()) == (2, True, False)
    assert telemetry("trust", "n 1", public, "--root", store.root).returncode == 2
    assert telemetry("trust", "n-1", tmp_path / "none.pub", "--root", store.root).returncode == 2
    assert telemetry("trust", "hub", public, "--hub", "--revoke", "--root", root).returncode == 2
    assert telemetry("trust", "hub", public, "--hub", "--root", root).returncode == 0
    assert (root / "runtime/hub_signers").read_text().startswith('hub namespaces="calyx-telemetry-receipt" ')


def test_files_of_signers_that_nobody_can_read_right(tmp_path: Path, key: Path) -> None:
    """Files in editors' or PowerShell's encodings, or with an invalid line: nothing is imported, with an error."""
    store, bundle = hub(tmp_path), make_bundle(make_node(tmp_path, "n-1"), range(2))
    line = f"n-1 {key.with_suffix('.pub').read_text()}"
    for data in (
        b"\xef\xbb\xbf" + line.encode(),
        line.encode("utf-16"),
        line.encode("utf-16-le"),
        b"n-1\n",
        b"n-1 junk\n",
    ):
        store.signers.write_bytes(data)
        with pytest.raises(ConfigError):
            import_bundle(store, bundle)
    public = key.with_suffix(".pub").read_text()
    strange = (
        "",
        "m-1, n-1 ",
        "m-1 n-1 ",
        "n-1: ",
        '"n-1 " ',
        '"other node,n-1" ',
        "n[12] ",
        "n-1 nonsense=1 ",
        "n-1,, ",
    )
    for start in strange:
        store.signers.write_text(f"{start}{public.rstrip()} laptop\n")
        with pytest.raises(ConfigError, match="not a valid line of a signers file"):
            import_bundle(store, bundle)
    for odd in ("\r", "\f", "\u2028"):
        store.signers.write_text(f"# old{odd}n-1 {public}")
        with pytest.raises(ConfigError, match="line breaks"):
            import_bundle(store, bundle)
    store.signers.write_text(f'"m-1,n-1" {public}')
    assert import_bundle(store, bundle).outcome == "refused"
    store.signers.unlink()
    if sys.platform != "win32":
        store.signers.symlink_to(tmp_path / "not mounted")
        with pytest.raises(StorageError, match="what this link leads to"):
            import_bundle(store, bundle)
    assert store.nodes() == []


def test_revoking_for_good(tmp_path: Path, key: Path) -> None:
    """A key in a comment is not revoked yet; a binary list is left alone; a link to nothing lets nothing through."""
    store, bundle = hub(tmp_path), make_bundle(make_node(tmp_path, "n-1"), range(2), options=signing(key))
    public = read_public_key(key.with_suffix(".pub"))
    allow(store.signers, "n-1", key)
    store.revoked.write_text(f"# was revoked by mistake: {public}\n")
    assert not is_listed(store.revoked, public)
    assert add_line(store.revoked, str(public))
    assert is_listed(store.revoked, public)
    assert not add_line(store.revoked, str(public))
    assert "revoked in" in import_bundle(store, bundle).faults[0].found
    store.revoked.unlink()
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(store.revoked), f"{key}.pub"], check=True, capture_output=True)
    assert "revoked in" in import_bundle(store, bundle).faults[0].found
    with pytest.raises(ConfigError, match="ssh-keygen -k -u"):
        add_line(store.revoked, str(public))
    store.revoked.unlink()
    if sys.platform != "win32":
        store.revoked.symlink_to(tmp_path / "not mounted")
        assert import_bundle(store, bundle).outcome == "refused"
        store.revoked.unlink()
    assert import_bundle(store, bundle).outcome == "imported"


def test_the_program_is_looked_for_in_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the working directory, which may be the stick the bundle came on."""
    trap = tmp_path / ("ssh-keygen.exe" if sys.platform == "win32" else "ssh-keygen")
    trap.write_text("#!/bin/sh\necho Good; exit 0\n")
    trap.chmod(0o755)
    key = tmp_path / "key"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join(["", "."]))
    with pytest.raises(ConfigError, match="not installed"):
        sign(b"x", str(key), "n")


def test_the_keys_that_are_trusted_are_listed(node: Node, tmp_path: Path, key: Path) -> None:
    """At a hub with the revoked ones, at a node the hubs'; a file with a line that is none is an error."""
    (tmp_path / "hub").mkdir()
    store = Store(tmp_path / "hub")
    public, other = key.with_suffix(".pub"), make_key(tmp_path / "other").with_suffix(".pub")
    fingerprint, gone = read_public_key(public).fingerprint, read_public_key(other).fingerprint
    hub = ("--root", store.root)
    assert "no key is trusted here" in telemetry("trust", "--list", *hub).stdout
    for args in (("n-1", public), ("n-1", other), ("--revoke", "n-1", other)):
        assert telemetry("trust", *args, *hub).returncode == 0
    said = telemetry("trust", "--list", *hub).stdout
    assert f"n-1: ssh-ed25519 {fingerprint}" in said
    assert f"revoked: ssh-ed25519 {gone}" in said
    assert json.loads(telemetry("trust", "--list", "--json", *hub).stdout) == [
        {"name": "n-1", "key": fingerprint, "revoked": False},
        {"name": "n-1", "key": gone, "revoked": False},
        {"name": None, "key": gone, "revoked": True},
    ]
    assert telemetry("trust", "--hub", "main-hub", public, "--root", node.root).returncode == 0
    listed = json.loads(telemetry("trust", "--list", "--hub", "--json", "--root", node.root).stdout)
    assert listed == [{"name": "main-hub", "key": fingerprint, "revoked": False}]
    store.signers.write_text("n-1 nonsense")
    done = telemetry("trust", "--list", *hub)
    assert (done.returncode, "line 1 is not a valid line" in done.stderr) == (2, True)
    for bad in (("--list", "n-1"), ("n-1",), ("--list", "--revoke")):
        assert telemetry("trust", *bad, *hub).returncode == 2


def test_verify_says_who_signed(tmp_path: Path, key: Path) -> None:
    """The key alone without a hub; with one, whether it is the node's; and a wrong signature is a fault."""
    node = make_node(tmp_path, "n-1")
    plain = make_bundle(node, range(1))
    signed = make_bundle(node, range(2), second=10, options=ExportOptions(sign_with=str(key)))
    fingerprint = read_public_key(key.with_suffix(".pub")).fingerprint
    hub = tmp_path / "hub"
    hub.mkdir()
    assert "not signed" in telemetry("verify", plain).stdout
    for args in ((), ("--root", hub)):  # a hub that knows no key of the node
        done = telemetry("verify", signed, *args)
        word = f"signed with ED25519 key {fingerprint}; whether that is a key of node n-1 is"
        assert (done.returncode, word in done.stdout) == (0, True), done.stdout
    assert telemetry("trust", "n-1", f"{key}.pub", "--root", hub).returncode == 0
    done = telemetry("verify", signed, "--root", hub)
    assert (done.returncode, f"key {fingerprint}, trusted for node n-1" in done.stdout) == (0, True), done.stdout
    (found,) = json.loads(telemetry("verify", signed, "--root", hub, "--json").stdout)
    assert (found["verified"], found["trusted"], found["signature_fault"]) == (True, True, None)
    assert found["signed_by"] == f"ED25519 key {fingerprint}"
    done = telemetry("verify", plain, "--root", hub)
    assert (done.returncode, "it is not signed, and keys are trusted" in done.stdout) == (1, True)
    other = make_key(tmp_path / "other")
    (signed / "manifest.json.sig").write_bytes(
        sign((signed / "manifest.json").read_bytes(), str(other), MANIFEST_NAMESPACE)
    )
    done = telemetry("verify", signed, "--root", hub)
    assert (done.returncode, "which is not trusted for n-1" in done.stdout) == (1, True), done.stdout
    assert telemetry("verify", signed).returncode == 0
    (signed / "manifest.json.sig").write_bytes(sign(b"other bytes", str(key), MANIFEST_NAMESPACE))
    for args in ((), ("--root", hub)):
        done = telemetry("verify", signed, *args)
        assert (done.returncode, "over other bytes" in done.stdout) == (1, True), done.stdout


def test_verify_without_ssh_keygen(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are checked; that the signature is not is said."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2), options=ExportOptions(sign_with=str(key)))
    monkeypatch.setenv("PATH", str(tmp_path))
    done = telemetry("verify", bundle)
    assert (done.returncode, "signature not checked: ssh-keygen is not installed" in done.stdout) == (0, True)
    (found,) = json.loads(telemetry("verify", bundle, "--json").stdout)
    assert (found["verified"], found["signed_by"]) == (True, None)
    assert "ssh-keygen" in found["signature_fault"]
    (tmp_path / "hub").mkdir()
    assert telemetry("verify", bundle, "--root", tmp_path / "hub").returncode == 1


def test_verify_of_what_is_no_signature(tmp_path: Path, key: Path) -> None:
    """A folder in its place is a fault, with a hub's keys and without."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2), options=ExportOptions(sign_with=str(key)))
    (bundle / "manifest.json.sig").unlink()
    (bundle / "manifest.json.sig").mkdir()
    (tmp_path / "hub").mkdir()
    for args in ((), ("--root", tmp_path / "hub")):
        done = telemetry("verify", bundle, *args)
        assert (done.returncode, "the signature cannot be read" in done.stdout) == (1, True), done.stdout


def test_a_revoked_key_of_a_node_that_nobody_trusts(tmp_path: Path, key: Path) -> None:
    """Nothing that it signed is taken, whether or not another key is trusted for the node."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2), options=ExportOptions(sign_with=str(key)))
    hub = tmp_path / "hub"
    hub.mkdir()
    assert telemetry("trust", "--revoke", "n-1", f"{key}.pub", "--root", hub).returncode == 0
    for command in ("verify", "import"):
        done = telemetry(command, bundle, "--root", hub)
        assert (done.returncode, "which is revoked in" in done.stdout) == (1, True), (command, done.stdout, done.stderr)
    done = telemetry("audit", "--root", hub)
    assert done.returncode != 0
