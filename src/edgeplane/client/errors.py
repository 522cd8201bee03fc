"""What a call can end with, apart from an answer."""


class ClientError(Exception):
    """What a call can end with; the message is one line."""


class Unreachable(ClientError):
    """No answer came. ``sent``: the request may have arrived and been carried out all the same."""

    def __init__(self, url: str, reason: str, *, sent: bool) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url
        self.reason = reason
        self.sent = sent


class ApiError(ClientError):
    """The answer is an error: the contract's code, the HTTP status and the message as sent.

    ``credential`` says in words what the request was sent with, where whoever made the client did.
    """

    def __init__(
        self,
        code: int,
        status: int,
        message: str,
        request_id: str | None = None,
        *,
        retry_after: int | None = None,
        credential: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        self.credential = credential
