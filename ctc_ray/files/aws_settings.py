"""How this machine reaches a bucket of S3: endpoint, region and credentials.

The environment comes first, as in every tool of AWS: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SKIP_SIGNATURE, the roles of containers and instances. obstore reads most of
it. Here is what obstore leaves out: the region of a bucket, and the keys in `~/.aws/credentials`.
"""

from __future__ import annotations

import configparser
import os
import urllib.error
import urllib.request
from email.message import Message
from typing import TYPE_CHECKING

from ctc_ray.files.retries import UnusableStoreError

if TYPE_CHECKING:
    from obstore.store import S3Config

_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_EXPORT = 'eval "$(aws configure export-credentials --format env)"'
TO_AWS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "for a public bucket AWS_SKIP_SIGNATURE=true"
)


def bucket_settings(bucket: str, *, aws: str = "https://s3.amazonaws.com") -> S3Config:
    """The settings of obstore's S3Store that the environment does not give it by itself.

    Args:
        aws: where a bucket without an endpoint of its own is asked for its region.

    Raises:
        FileNotFoundError: there is no such bucket.
        UnusableStoreError: the credentials cannot be used.
        OSError: the bucket's region cannot be asked for.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:  # not every store that speaks S3 reports a region
        return {"endpoint": endpoint, "region": region or "us-east-1", **_credentials()}
    found = bucket_region(f"{aws}/{bucket}")
    return {"region": found or region or "us-east-1", **_credentials()}


def bucket_region(url: str) -> str | None:
    """The region of a bucket; AWS reports it without credentials.

    Raises:
        FileNotFoundError: there is no such bucket.
        OSError: no answer.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with _NO_REDIRECT.open(request, timeout=20) as answer:
            headers: Message = answer.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
        if error.code == 404:
            raise FileNotFoundError("no such bucket") from error
    return headers.get("x-amz-bucket-region")


class _KeepAnswer(urllib.request.HTTPRedirectHandler):
    """A bucket of another region redirects, and the redirect names the region."""

    def redirect_request(self, *_: object) -> None:
        """Go nowhere."""


_NO_REDIRECT = urllib.request.build_opener(_KeepAnswer)


def _credentials() -> S3Config:
    """Keys from the profile in the credentials file; empty where obstore finds its own.

    Raises:
        UnusableStoreError: the profile is not there or has no keys, and nothing else gives any.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID") or _is_true("AWS_SKIP_SIGNATURE"):
        return {}
    profile = _profile(os.environ.get("AWS_PROFILE") or "default")
    if profile is None and os.environ.get("AWS_PROFILE"):
        raise UnusableStoreError(
            f"AWS_PROFILE: ~/.aws has no profile {os.environ['AWS_PROFILE']!r}"
        )
    if profile and "aws_access_key_id" in profile:
        keys: S3Config = {
            "access_key_id": profile["aws_access_key_id"],
            "secret_access_key": profile.get("aws_secret_access_key", ""),
        }
        if "aws_session_token" in profile:
            keys["session_token"] = profile["aws_session_token"]
        return keys
    if profile and any(key.startswith(("sso_", "role_", "credential_pr")) for key in profile):
        raise UnusableStoreError(
            f"the AWS profile signs in by a command or a role; run `{_EXPORT}` first"
        )
    if _is_true("AWS_EC2_METADATA_DISABLED") and not any(map(os.environ.get, _ROLES)):
        raise UnusableStoreError(f"no credentials for S3; {TO_AWS}")
    return {}


def _profile(name: str) -> dict[str, str] | None:
    """What the files of AWS say of a profile; None: nothing."""
    files = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(
            os.environ.get(variable) or os.path.expanduser(f"~/.aws/{file}")
            for variable, file in files.items()
        )
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UnusableStoreError(
            f"~/.aws cannot be read: {' '.join(str(error).split())}"
        ) from error
    sections = [s for s in (f"profile {name}", name) if parser.has_section(s)]
    return {k: v for s in sections for k, v in parser.items(s)} if sections else None


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")
