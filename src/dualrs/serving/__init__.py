"""A service that answers with certificates, and its page; needs the extra ``serve``."""

from dualrs.extras import missing

try:
    import fastapi as _fastapi
    import prometheus_client as _prometheus_client
    import uvicorn as _uvicorn
except ImportError as error:
    raise missing("the service needs more packages", "serve") from error

from dualrs.serving.access import Tokens, hash_of, new_token
from dualrs.serving.app import make_app
from dualrs.serving.limits import Limits
from dualrs.serving.records import RecordFile, Verification, input_on_record, verify
from dualrs.serving.server import log_to_stderr, serve
from dualrs.serving.service import Service

__all__ = [
    "Limits",
    "RecordFile",
    "Service",
    "Tokens",
    "Verification",
    "hash_of",
    "input_on_record",
    "log_to_stderr",
    "make_app",
    "new_token",
    "serve",
    "verify",
]

del _fastapi, _prometheus_client, _uvicorn
