"""schemathesis against the listener where keys are had, of a running zapd: whatever fits its OpenAPI document, or
does not, gets an answer that the document names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, openapi
from schemathesis.checks import CHECKS
from support.app_scene import CONFIGURATION
from support.enrolling import new_key
from support.serving import serving

from zapd.admin.api.enroll import EnrollContext, create_enroll_app

ENROLL = (
    CONFIGURATION
    + """
[enroll]
listen = "127.0.0.1:0"
[signin.orders]
[penalties]
trusted = ["127.0.0.0/8"]
"""
)
QUICK = settings(
    max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_whatever_is_said_gets_an_answer_that_is_documented(tmp_path: Path) -> None:
    """Bodies that fit and bodies that do not; some with a real key, and some of those with a good token or
    password."""
    app = create_enroll_app(EnrollContext(enrol=None, sign_in=None))  # type: ignore[arg-type]
    schema = openapi.from_dict(app.openapi())
    seen: set[tuple[str, int]] = set()
    with serving(tmp_path, configuration=ENROLL) as zapd:
        zapd.ask("POST", "/v1/users", {"name": "alice", "password": "correct horse", "domains": ["orders"]})
        token = zapd.ask("POST", "/v1/joins", {"domains": ["orders"], "uses": 1000})["token"]
        good: dict[str, Any] = {"token": token, "user": "alice", "password": "correct horse", "domain": None}

        def ask(case: Any, key: str | None, right: bool) -> None:
            if isinstance(case.body, dict) and "public_key" in case.body and key is not None:
                case.body["public_key"] = key
                if right:
                    case.body.update({name: good[name] for name in good.keys() & case.body.keys()})
            response = case.call(base_url=zapd.enroll_url)
            seen.add((case.path, response.status_code))
            # What a key, a name or a label is beyond its length no schema says.
            case.validate_response(response, excluded_checks=[CHECKS.get_one("positive_data_acceptance")])

        for path in ("/v1/enroll", "/v1/signin"):
            for mode in GenerationMode:
                cases = schema[path]["POST"].as_strategy(generation_mode=mode)
                real = [new_key() for _ in range(2)] if mode is GenerationMode.POSITIVE else []
                QUICK(given(cases, st.sampled_from([None, *real]), st.booleans())(ask))()
        assert "Traceback" not in zapd.logged()
    expected = {(path, status) for path in ("/v1/enroll", "/v1/signin") for status in (200, 201, 403, 422)}
    assert seen >= expected
