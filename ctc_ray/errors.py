"""The exceptions that stop a stage; a broken image is a value (`schemas.Failure`) instead.

CtcError
├── ConfigError            a setting is wrong, or does not fit the inputs
│   └── UsageError         the command line or a YAML file is wrong, whatever the inputs are
├── SchemaError            a file does not have the columns or the version that its reader expects
├── LabelError             a class or a head is unknown
├── IncompleteDataError    the input was not finished by the stage that writes it
├── OutputInUseError       another command is writing into the output folder
├── DivergedError          the loss of a training is not a number
└── TooManyFailuresError   more rows failed than `max_failure_fraction` allows
"""

import re

_USER = r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s]*@"
_SIGNED = (
    r"[?&](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig)="
)
CREDENTIALS = rf"(?i:{_USER}|{_SIGNED})"
"""Regular expression of what makes a URI a secret: a user or a password, or a signature."""


def holds_credentials(text: str) -> bool:
    """Whether there is a user, a password or a signature in a URI of the text."""
    return re.search(CREDENTIALS, text) is not None


def masked(text: str) -> str:
    """The text without the users, passwords and signatures of its URIs."""
    text = re.sub(_USER, lambda found: f"{found[0].partition('://')[0]}://***@", text)
    return re.sub(rf"(?i:{_SIGNED})\S*", "?***", text)


class CtcError(Exception):
    """An error that the user can solve; the message names its cause and the way out in one line."""


class ConfigError(CtcError):
    """A setting is wrong, or does not fit the inputs."""


class UsageError(ConfigError):
    """The command line or a YAML file is wrong, whatever the inputs are: exit code 2.

    `mistakes` are the parts of the message where there are several.
    """

    def __init__(self, message: str, mistakes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.mistakes = mistakes


class SchemaError(CtcError):
    """A file does not have the columns or the version that its reader expects."""


class LabelError(CtcError):
    """A class or a head is not in the label space."""


class IncompleteDataError(CtcError):
    """The input has no manifest: the stage that writes it has not finished."""


class OutputInUseError(CtcError):
    """Another command is writing into the output folder."""


class DivergedError(CtcError):
    """The loss of a training is not a number: its weights are of no use."""


class TooManyFailuresError(CtcError):
    """More rows failed than `max_failure_fraction` allows; finished work is kept."""
