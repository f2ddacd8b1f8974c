"""``zapd key import``: keys of a file, of a folder of certificates, or of VOLTTRON, into the registry."""

from __future__ import annotations

from pathlib import Path

import click

from zapd.cli.options import Settings, common_options, import_options, pass_settings


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "jsonl", "czmq", "pyzmq", "volttron"]),
    help="What SOURCE is, where its name does not say: a file; a folder of certificates of czmq or pyzmq;"
    " VOLTTRON's auth.json.",
)
@import_options
@common_options
@pass_settings
def import_keys(
    settings: Settings, source: Path, form: str | None, dry_run: bool, partial: bool, domains: tuple[str, ...]
) -> None:
    """Register the keys of SOURCE: all in one transaction, or, when any of them cannot go in, none.

    CSV begins with a heading; its columns and the members of JSON are those of `zapd key export`. What is there
    already, just so, is left as it is.
    """
    from zapd.cli.foreign import certificates, volttron
    from zapd.cli.importing import form_of, send_file, send_found

    query = {"dry_run": dry_run, "partial": partial, "domain": list(domains)}
    where = "/v1/keys/import"
    if form in ("czmq", "pyzmq") or (form is None and source.is_dir()):
        send_found(settings, where, certificates(source), query)
    elif form == "volttron":
        send_found(settings, where, volttron(source), query)
    else:
        send_file(settings, where, source, form_of(source, form), query)
