"""What the places where zapd listens demand: nobody beyond this machine meets one that is not secured.

Each function looks at one endpoint and reports to `Findings`; no socket is opened and no name resolved.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

from zapd.config.findings import Findings, Setting
from zapd.config.sections import AdminSection, EnrollSection, Sections, ZapSection
from zapd.errors import InvalidInput
from zapd.net.address import IpcAddress, TcpAddress, parse_address
from zapd.store.rules import check_domains

_MODE = re.compile(r"0?[0-7]{3}")


def check_doors(sections: Sections, base: Path, findings: Findings) -> None:
    """Report on every ``[[zap]]``, on ``[admin]`` and on ``[enroll]``."""
    for number, endpoint in enumerate(sections.zap):
        _check_endpoint(endpoint, ("zap", number), base, findings)
    _check_listeners(sections, base, findings)
    _check_web("admin", "the admin API", sections.admin, findings)
    if sections.enroll.listen:
        _check_web("enroll", "where keys are had", sections.enroll, findings)
        _check_addresses_are_known(sections.enroll, findings)


def _check_endpoint(endpoint: ZapSection, at: Setting, base: Path, findings: Findings) -> None:
    listen, mechanism = (*at, "listen"), (*at, "mechanism")
    try:
        address = parse_address(endpoint.listen, base)
    except InvalidInput as error:
        findings.mistake(listen, str(error), "")
        return
    if address.is_public and endpoint.mechanism != "CURVE":
        findings.mistake(
            mechanism,
            f"{endpoint.mechanism} on {endpoint.listen}, which others can reach",
            'NULL and PLAIN are for loopback and ipc only: write mechanism = "CURVE", or listen on 127.0.0.1',
            needs=[listen],
        )
    if isinstance(address, TcpAddress) and not _is_listenable(address):
        findings.mistake(listen, "listens on a name", "write a numeric address, localhost or *")
    for name in ("domains", "mechanisms"):
        if endpoint.mechanism == "CURVE" and getattr(endpoint, name):
            findings.mistake(
                (*at, name),
                f"a CURVE endpoint has no {name} of its own",
                f"remove it: each agent has the {name} it was enrolled with",
                needs=[mechanism],
            )
    if endpoint.mechanism != "CURVE":
        if not endpoint.domains:
            findings.mistake(
                at,
                f"a {endpoint.mechanism} endpoint does not say what it may be asked about",
                'add domains = ["NAME"]',
                needs=[(*at, "domains"), mechanism],
            )
        _check_patterns((*at, "domains"), endpoint.domains, findings)
    _check_ipc(endpoint, at, isinstance(address, IpcAddress), findings)


def _is_listenable(address: TcpAddress) -> bool:
    return address.host == "*" or address.ip is not None or address.host.lower().rstrip(".") == "localhost"


def _check_patterns(setting: Setting, patterns: tuple[str, ...], findings: Findings) -> None:
    for pattern in patterns:
        try:
            check_domains([pattern])
        except InvalidInput as error:
            findings.mistake(setting, str(error), "")


def _check_ipc(endpoint: ZapSection, at: Setting, is_ipc: bool, findings: Findings) -> None:
    if not is_ipc:
        for name in ("mode", "group", "users"):
            if getattr(endpoint, name) is not None:
                findings.mistake((*at, name), "is for ipc endpoints only", "remove it", needs=[(*at, "listen")])
        return
    if endpoint.mode is not None and not _MODE.fullmatch(endpoint.mode):
        findings.mistake((*at, "mode"), f"{endpoint.mode!r} is no mode", 'write it in octal, such as "0660"')
    elif endpoint.permissions & 0o007 and endpoint.users is None and endpoint.mechanism == "NULL":
        findings.warn(
            (*at, "mode"), "every user of this machine may ask here", 'write "0660" and a group, or name the users'
        )
    for name, look_up in (("users", endpoint.uids), ("group", endpoint.gid)):
        try:
            look_up()
        except KeyError as error:
            findings.mistake(
                (*at, name), f"this system does not know it ({error.args[0]})", "create it, or mend the name"
            )


def _check_listeners(sections: Sections, base: Path, findings: Findings) -> None:
    """No two on one address; port 0 is a new one each time."""
    seen: dict[str, str] = {}
    listeners: list[tuple[Setting, str]] = [
        ((*("zap", number), "listen"), endpoint.listen) for number, endpoint in enumerate(sections.zap)
    ]
    listeners.append((("admin", "listen"), f"tcp://{sections.admin.listen}"))
    if sections.enroll.listen:
        listeners.append((("enroll", "listen"), f"tcp://{sections.enroll.listen}"))
    for setting, text in listeners:
        try:
            address = parse_address(text, base)
        except InvalidInput:
            continue
        if isinstance(address, TcpAddress) and address.port == 0:
            continue
        if str(address) in seen:
            findings.mistake(setting, f"{seen[str(address)]} listens there already", "choose another port or path")
        seen.setdefault(str(address), ".".join(map(str, setting)))


def _check_web(table: str, what: str, web: AdminSection | EnrollSection, findings: Findings) -> None:
    listen: Setting = (table, "listen")
    try:
        address = parse_address(f"tcp://{web.listen}")
    except InvalidInput:
        findings.mistake(listen, f"{web.listen!r} is no HOST:PORT", 'write it as "127.0.0.1:8027" or "[::1]:8027"')
        return
    tls: list[Setting] = [(table, "tls_cert"), (table, "tls_key")]
    if (web.tls_cert is None) != (web.tls_key is None):
        there, missing = (tls[0], "tls_key") if web.tls_key is None else (tls[1], "tls_cert")
        findings.mistake(there, f"needs {missing} beside it", f"add {missing}", needs=tls)
    elif address.is_public and web.tls_cert is None and not web.behind_proxy:
        findings.mistake(
            listen,
            f"others can reach {what}, and there is no TLS",
            "add tls_cert and tls_key, or behind_proxy = true, or listen on 127.0.0.1",
            needs=[*tls, (table, "behind_proxy")],
        )
    proxies: Setting = (table, "trusted_proxies")
    for network in web.trusted_proxies:
        try:
            ip_network(network)
        except ValueError:
            findings.mistake(proxies, f"{network!r} is no network", 'write it in CIDR form, such as "10.0.0.0/8"')
    if web.trusted_proxies and not web.behind_proxy:
        findings.mistake(
            proxies,
            "means nothing without behind_proxy",
            "add behind_proxy = true, or remove it",
            needs=[(table, "behind_proxy")],
        )


def _check_addresses_are_known(enroll: EnrollSection, findings: Findings) -> None:
    """Behind a proxy whose word is not taken everybody would come from the proxy's own address: the ranges of join
    tokens would let in all or none, and one guesser would hold up everybody."""
    if enroll.behind_proxy and not enroll.trusted_proxies:
        findings.mistake(
            ("enroll", "behind_proxy"),
            "nobody's own address would be known",
            'add trusted_proxies = ["NETWORK"] with the address of the proxy',
            needs=[("enroll", "trusted_proxies")],
        )
