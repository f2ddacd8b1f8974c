"""``zapd keygen``: a CURVE key pair, or the key that signs the journal."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from zapd.cli.files import NewFile
from zapd.cli.options import Settings, json_option, pass_settings
from zapd.cli.output import print_fields, print_json

_ZPL = """\
#   CURVE certificate made by zapd keygen, {time}.
#   {note}

metadata
curve
    public-key = "{public_key}"
"""


@click.command("keygen")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write it there, mode 0600; never overwrites.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "czmq", "journal"]),
    default="toml",
    help="czmq writes a zcert: FILE is public, FILE_secret is not. journal is no CURVE pair but the Ed25519 key "
    "that signs the journal's checkpoints, as `zapd init` makes one.",
)
@json_option
@pass_settings
def command(settings: Settings, output: Path | None, form: str) -> None:
    """Make a CURVE key pair (Z85, RFC 32).

    Without -o the pair is printed, its secret half too; with -o the secret is in the file alone.
    """
    from zapd.config.curve_key import format_curve_pair
    from zapd.zmtp.keys import encode_key, fingerprint, generate_keypair

    if form == "journal":
        _journal_key(settings, output)
        return

    public_key, secret_key = generate_keypair()
    while encode_key(public_key).startswith("-"):  # legal, and a nuisance on every command line
        public_key, secret_key = generate_keypair()
    public, secret = encode_key(public_key), encode_key(secret_key)
    if output is None:
        if settings.json:
            print_json({"public_key": public, "secret_key": secret, "fingerprint": fingerprint(public_key)})
        elif form == "czmq":
            click.echo(_zpl(public, secret), nl=False)
        else:
            click.echo(format_curve_pair(public_key, secret_key), nl=False)
        return
    files = [output]
    if form == "czmq":
        # As czmq's zcert: two files, so that the public one can be given away.
        files.append(output.with_name(output.name + "_secret"))
        with NewFile(files[0], mode=0o644) as first, NewFile(files[1]) as second:
            second.publish(_zpl(public, secret))
            first.publish(_zpl(public))
    else:
        with NewFile(output) as file:
            file.publish(format_curve_pair(public_key, secret_key))
    made = {"public_key": public, "fingerprint": fingerprint(public_key), "files": [str(each) for each in files]}
    if settings.json:
        print_json(made)
    else:
        print_fields(made)


def _journal_key(settings: Settings, output: Path | None) -> None:
    from zapd.audit.signing import new_signing_key

    if output is None:
        raise click.UsageError("The journal's key is for a file: name it with -o.")
    secret, public = new_signing_key()
    with NewFile(output) as file:
        file.publish(secret)
    made = {"public_key": public, "files": [str(output)]}
    if settings.json:
        print_json(made)
    else:
        print_fields(made)


def _zpl(public: str, secret: str = "") -> str:
    """A certificate as czmq's zcert reads it (ZPL, RFC 4)."""
    note = "Keep this file secret." if secret else "Give this file to those who must know the public key."
    text = _ZPL.format(time=datetime.now(UTC).strftime("%Y-%m-%d"), note=note, public_key=public)
    return text + (f'    secret-key = "{secret}"\n' if secret else "")
