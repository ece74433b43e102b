"""Requests to a WebDAV server: repeated where that may help; what fails is an error of the farm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import httpx2
import stamina

from renderfarm.errors import FarmUnavailable, RenderfarmError, StorageFull
from renderfarm.storage.location import WebDavLocation

_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
#: The server answers when it has copied the whole file.
COPY_TIMEOUT = httpx2.Timeout(60.0, connect=5.0, read=3600.0)
_TRIES = 3
_PASSING = {500, 502, 503, 504}
_EXISTS, _NO_PARENT = 405, 409

Body = Callable[[], Iterator[bytes]]
"""Begins the body of a request, at each try."""


class DavClient:
    """The connections to one server, for many threads."""

    def __init__(self, location: WebDavLocation) -> None:
        self._location = location
        self._client = httpx2.Client(
            auth=None if location.user is None else httpx2.BasicAuth(location.user, location.password),
            headers={"Accept-Encoding": "identity"},
            timeout=_TIMEOUT,
            trust_env=False,  # the server is in this network: a proxy from the environment would not find it
        )

    def close(self) -> None:
        self._client.close()

    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str] | None
    ) -> AbstractContextManager[httpx2.Response]:
        """Open an answer that is read while it comes; within ``errors`` and ``retries``."""
        return self._client.stream(method, url, headers=headers)

    def write(
        self,
        method: str,
        path: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Body | None = None,
        accept: Collection[int] = (),
        timeout: httpx2.Timeout = _TIMEOUT,
    ) -> httpx2.Response:
        """Send what makes a file ``target``, and the folders for it if they are missing. Dufs makes them itself."""
        answer = self.send(method, path, headers=headers, body=body, accept={*accept, _NO_PARENT}, timeout=timeout)
        if answer.status_code != _NO_PARENT:
            return answer
        self._make_folder(self.url(target).rpartition("/")[0])
        return self.send(method, path, headers=headers, body=body, accept=accept, timeout=timeout)

    def _make_folder(self, url: str) -> None:
        made = {_EXISTS, HTTPStatus.MOVED_PERMANENTLY}  # the latter: it exists, and its name ends with a slash
        answer = self.send("MKCOL", url, accept={*made, _NO_PARENT})
        parent = url.rpartition("/")[0]
        if answer.status_code == _NO_PARENT and urlsplit(parent).netloc:
            self._make_folder(parent)
            self.send("MKCOL", url, accept=made)

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: Collection[int] = (),
        timeout: httpx2.Timeout = _TIMEOUT,
    ) -> httpx2.Response:
        """Send a request, again if that may help; a status of ``accept`` is no error."""
        with self.errors():
            for attempt in retries():
                with attempt:
                    return self.send_once(method, path, headers=headers, body=body, accept=accept, timeout=timeout)
        raise AssertionError("stamina gives up by raising")

    def send_once(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: Collection[int] = (),
        timeout: httpx2.Timeout = _TIMEOUT,
    ) -> httpx2.Response:
        """Send a request, within ``errors`` and, where it may be sent again, ``retries``."""
        content = None if body is None else body()
        answer = self._client.request(method, self.url(path), headers=headers, content=content, timeout=timeout)
        if answer.status_code not in accept:
            answer.raise_for_status()
        return answer

    def url(self, path: str) -> str:
        """Return the address of a path below the farm's folder."""
        return path if path.startswith(("http://", "https://")) else f"{self._location.url}/{quote(path)}"

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the server answers, or does not, into errors of the farm."""
        try:
            yield
        except httpx2.HTTPStatusError as error:
            raise self._of_answer(error.request.method, error.response.status_code) from error
        except httpx2.TimeoutException as error:
            raise FarmUnavailable(f"the object store {self._location} does not answer in time") from error
        except httpx2.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FarmUnavailable(f"the object store {self._location} does not answer: {reason}") from error

    def _of_answer(self, method: str, status: int) -> RenderfarmError:
        if status == HTTPStatus.INSUFFICIENT_STORAGE:
            return StorageFull(f"the object store {self._location} is full")
        if status == HTTPStatus.UNAUTHORIZED:
            return FarmUnavailable(f"the object store {self._location} refuses the user or the password")
        if status == HTTPStatus.FORBIDDEN:
            return FarmUnavailable(f"the object store {self._location} does not allow this user to {method}")
        return FarmUnavailable(f"the object store {self._location} answered {status} to {method}")


def retries() -> Iterable[stamina.Attempt]:
    """Return attempts, to be entered one after the other, at something that a server may be too busy for just now."""
    return stamina.retry_context(on=_may_pass, attempts=_TRIES, timeout=None, wait_initial=0.1, wait_jitter=0.2)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code in _PASSING
    return isinstance(error, httpx2.TransportError)
