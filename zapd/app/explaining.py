"""An operator's "what would be decided?", put to the authority."""

from __future__ import annotations

from zapd.admin.services.explain import Explanation, Step, Supposed
from zapd.auth.authority import Authority
from zapd.zap import ZapRequest


async def explain(authority: Authority, supposed: Supposed) -> Explanation:
    """Ask the authority, and say what the answer would be."""
    credentials = {
        "CURVE": (supposed.key,),
        "PLAIN": (supposed.username.encode(), b""),
        "GSSAPI": (supposed.username.encode(),),
    }.get(supposed.mechanism, ())
    request = ZapRequest(b"explain", supposed.domain, supposed.address, b"", supposed.mechanism, credentials)
    steps = await authority.explain(request)
    last = steps[-1]
    # The rules let the question through; only the password, which nobody gave, is left to judge.
    status, reason = (
        (300, "password_not_given") if last.verdict == "empty_password" else (last.status, last.verdict)
    )
    return Explanation(
        status=status,
        reason=reason,
        principal=last.detail if status == 200 else "",
        groups=last.principal.groups if last.principal is not None else (),
        attributes=last.principal.attributes if last.principal is not None else (),
        steps=tuple(Step(each.step, each.verdict, each.detail, each.milliseconds) for each in steps),
    )
