"""What a server's password policy says beside its answer to a bind: one control, and its error."""

from __future__ import annotations

from typing import Final

from pyasn1.codec.ber import decoder
from pyasn1.type import namedtype, tag, univ

from zapd_backends.ldap_line import Trouble

PASSWORD_POLICY: Final = "1.3.6.1.4.1.42.2.27.8.5.1"  # noqa: S105 - an identifier
"""The request and response control of draft-behera-ldap-password-policy, section 6."""


class Policy:
    """``error`` of a password policy's answer."""

    PASSWORD_EXPIRED: Final = 0
    ACCOUNT_LOCKED: Final = 1
    CHANGE_AFTER_RESET: Final = 2


def policy_error(value: bytes | None) -> int | None:
    """The error of a PasswordPolicyResponseValue, if it has one. Raises `Trouble` for what cannot be read."""
    if not value:
        return None
    try:
        read, _ = decoder.decode(value, asn1Spec=_POLICY_ANSWER)
        return int(read["error"]) if read["error"].isValue else None
    except Exception:  # noqa: BLE001 - whatever pyasn1 makes of garbage
        raise Trouble("directory_error", "a password policy's answer cannot be read") from None


def _context(number: int, form: int = tag.tagFormatSimple) -> tag.Tag:
    return tag.Tag(tag.tagClassContext, form, number)


_POLICY_ANSWER: Final = univ.Sequence(
    componentType=namedtype.NamedTypes(
        namedtype.OptionalNamedType(
            "warning",
            univ.Choice(
                componentType=namedtype.NamedTypes(
                    namedtype.NamedType("expires", univ.Integer().subtype(implicitTag=_context(0))),
                    namedtype.NamedType("grace", univ.Integer().subtype(implicitTag=_context(1))),
                )
            ).subtype(explicitTag=_context(0, tag.tagFormatConstructed)),
        ),
        namedtype.OptionalNamedType("error", univ.Enumerated().subtype(implicitTag=_context(1))),
    )
)
