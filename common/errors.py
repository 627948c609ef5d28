"""The one base of errors that a person is meant to read.

FedAgeError
├── raised with a message that names what, where, what is allowed and the mend
└── shown by the command line as one line, without a traceback
"""


class FedAgeError(Exception):
    """An error whose message is for the person at the terminal and holds no patient data."""
