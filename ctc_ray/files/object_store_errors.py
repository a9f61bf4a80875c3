"""Errors of obstore as errors of Python, with the URI and the reason in one line."""

import re

from obstore import exceptions

from ctc_ray.errors import ConfigError
from ctc_ray.files.aws_settings import TO_AWS
from ctc_ray.files.retries import UnusableStoreError

_TO_GOOGLE = (
    "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`; "
    "for a public bucket GOOGLE_SKIP_SIGNATURE=true"
)
_NOT_ACCEPTED = re.compile(
    "InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|TokenRefreshRequired"
    "|RequestTimeTooSkewed|InvalidSecurity"
)
_REFUSED = re.compile("40[13] |AccessDenied")
# Without credentials obstore asks the machine it runs on for its role.
_NO_ROLE = re.compile(r"latest/api/token|169\.254\.|metadata\.google|computeMetadata")
_TOLD = re.compile(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?")
_REQUEST = re.compile(r"^Generic \S+ error: |Error performing .*? - |HTTP error: ")
_STATUS = "Server returned non-2xx status code: "
_CAUSE = re.compile(r'message: "([^"]+)"|error: "([^"]+)"|(TimedOut|IncompleteBody)')


def explained(uri: str, error: Exception) -> Exception:
    """The error of Python that says the same as this one of obstore; see `object_store.request`."""
    text = short(error)
    translated: Exception
    match error:
        case _ if text.startswith("NoSuchBucket"):
            translated = FileNotFoundError(f"{uri}: no such bucket")
        case FileNotFoundError():
            translated = FileNotFoundError(f"{uri}: no such object")
        case exceptions.AlreadyExistsError() | exceptions.PreconditionError():
            translated = FileExistsError(f"{uri}: {text}")
        case exceptions.InvalidPathError():  # of a listed object; that of a URI is a ValueError
            translated = ConfigError(f"{uri}: {text}")
        case ValueError():
            translated = OSError(f"{uri!r}: {text}")
        case _:
            translated = _failed(uri, error, text)
    return translated


def _failed(uri: str, error: Exception, text: str) -> OSError:
    if _NOT_ACCEPTED.search(text):
        return UnusableStoreError(f"{uri}: the store does not accept the credentials ({text})")
    kinds = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError
    if isinstance(error, kinds) or _REFUSED.match(text):  # a list's is of no kind
        return PermissionError(f"{uri}: the store refuses access ({text})")
    if _NO_ROLE.search(str(error)):
        how = _TO_GOOGLE if uri.startswith("gs:") else TO_AWS
        return UnusableStoreError(f"{uri}: no credentials; {how}")
    if "redirect" in text:
        return UnusableStoreError(f"{uri}: the bucket is in another region; set AWS_REGION")
    return ConnectionError(f"{uri}: the object store fails ({text})")


def short(error: Exception) -> str:
    """What the store says, or why there was no answer, without the request and its headers."""
    text, _, source = " ".join(str(error).split()).partition(" Debug source: ")
    if translated := _TOLD.search(text):
        return ": ".join(filter(None, translated.groups()))
    reason = _REQUEST.sub("", _REQUEST.sub("", text.rpartition(_STATUS)[2])).rstrip(": ")
    causes = [next(filter(None, found)) for found in _CAUSE.findall(source)]
    return f"{reason}: {causes[0]}" if causes and "error" in reason else reason
