"""The configuration of the daemon: one TOML file, read into plain typed data.

`load` reads it and finds every mistake at once. Only the command line and the composition root read this
package; the rooms get plain arguments. What each setting means is written beside it in
`zapd.config.sections`, `zapd.config.backends` and `zapd.config.limits`.
"""

from zapd.config.backends import BackendSection
from zapd.config.curve_key import format_curve_pair, read_curve_pair
from zapd.config.findings import InvalidConfiguration, Mistake
from zapd.config.limits import LimitsSection
from zapd.config.load import Config, load
from zapd.config.secret import Secret, read_private
from zapd.config.sections import (
    AdminSection,
    AuditSection,
    DatabaseSection,
    DomainSection,
    LinkSection,
    ServerSection,
    ZapSection,
)

__all__ = [
    "AdminSection",
    "AuditSection",
    "BackendSection",
    "Config",
    "DatabaseSection",
    "DomainSection",
    "InvalidConfiguration",
    "LimitsSection",
    "LinkSection",
    "Mistake",
    "Secret",
    "ServerSection",
    "ZapSection",
    "format_curve_pair",
    "load",
    "read_curve_pair",
    "read_private",
]
