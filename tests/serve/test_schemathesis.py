"""What schemathesis makes of the OpenAPI document: no answer is an error of the server's, and each is as documented."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from st_modules import SentenceTransformer
from st_modules.serve import create_app
from tests.helpers.serving import DASHSCOPE, KEY, Running

OPENSEARCH = "/v3/openapi/workspaces/{workspace}/multi-modal-embedding/{service_id}"
OPERATIONS = [
    ("POST", "/v1/embeddings"),
    ("POST", "/v2/embed"),
    ("POST", "/embed"),
    ("POST", DASHSCOPE),
    ("POST", OPENSEARCH),
    ("POST", "/v1/search"),
    ("GET", "/v1/index"),
    ("GET", "/v1/index/picture"),
    ("GET", "/v1/models"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
]

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]


@pytest.fixture(scope="module")
def document(tiny: SentenceTransformer) -> Any:
    return schemathesis.openapi.from_dict(create_app(tiny).openapi())


def test_every_operation_is_tried(document: Any) -> None:
    assert {(each.ok().method.upper(), each.ok().path) for each in document.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*each, GenerationMode.POSITIVE) for each in OPERATIONS]
    # Without parameters and a body nothing can be wrong.
    + [(*each, GenerationMode.NEGATIVE) for each in OPERATIONS if each[0] == "POST"],
)
def test_no_request_brings_about_an_error_of_the_servers(
    document: Any, running: Running, method: str, path: str, mode: GenerationMode
) -> None:
    @settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
    @given(case=document[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(
            base_url=running.url,
            headers={"Authorization": f"Bearer {KEY}"},
            # A schema cannot say all that makes an item: that an image is a data URI, or a request has one at least.
            excluded_checks=[positive_data_acceptance],
        )

    check()
