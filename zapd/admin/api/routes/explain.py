"""``/v1/explain``"""

from __future__ import annotations

from fastapi import APIRouter

from zapd.admin.api.deps import Caller, Context
from zapd.admin.api.views import ExplainIn, ExplainOut, ExplainStep
from zapd.admin.services.explain import Supposed
from zapd.zmtp.keys import decode_public_key

router = APIRouter(prefix="/explain", tags=["explain"])


@router.post("")
async def explain(context: Context, caller: Caller, body: ExplainIn) -> ExplainOut:
    """What would be decided now, and why."""
    found = await context.explain.explain(
        caller,
        Supposed(
            domain=body.domain,
            mechanism=body.mechanism,
            address=body.address,
            key=b"" if body.key is None else decode_public_key(body.key),
            username=body.username or "",
        ),
    )
    return ExplainOut(
        status=found.status,
        reason=found.reason,
        principal=found.principal,
        groups=list(found.groups),
        attributes=dict(found.attributes),
        steps=[
            ExplainStep(step=step.step, verdict=step.verdict, text=step.text, milliseconds=step.milliseconds)
            for step in found.steps
        ],
    )
