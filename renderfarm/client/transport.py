"""Sending requests: no exception but the farm's own leaves it, and what is safe to repeat is repeated."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import httpx2
import stamina

from renderfarm import errors

#: Parameters of a query; None is left out.
Params = Mapping[str, Any]
_TRIES = 3
_ELSEWHERE = (HTTPStatus.FOUND, HTTPStatus.TEMPORARY_REDIRECT)
_WAIT_FIRST_S, _WAIT_MAX_S, _WAIT_JITTER_S = 0.1, 1.0, 0.2

# Stamina would tell of each retry through structlog, which prints to standard output: that belongs to --json.
stamina.instrumentation.set_on_retry_hooks(())


class Transport:
    """One farm's address and the connections to it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        # The farm is on this machine or in this network: a proxy from the environment would not find it.
        with _as_farm_errors(self.url):
            self._client = httpx2.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, params: Params | None = None) -> httpx2.Response:
        """Send a GET, again if the farm does not answer."""
        for attempt in retries():
            with attempt:
                return self.send("GET", path, params=params)
        raise AssertionError("stamina gives up by raising")

    def send(
        self,
        method: str,
        path: str,
        *,
        read_timeout_s: float | None = None,
        accept: Container[int] = (),
        **arguments: Any,
    ) -> httpx2.Response:
        """Send one request, once; a status of ``accept`` is no error.

        Raises:
            RenderfarmError: what the problem body names.
            FarmUnavailable: no answer.
        """
        timeout = httpx2.Timeout(self._timeout_s, read=read_timeout_s or self._timeout_s)
        with _as_farm_errors(self.url):
            response = self._client.request(method, path, timeout=timeout, **_without_none(arguments))
        if response.status_code not in accept:
            _check(response)
        return response

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_timeout_s: float | None = None
    ) -> Iterator[httpx2.Response]:
        """Open an answer that is read while it comes."""
        timeout = httpx2.Timeout(self._timeout_s, read=read_timeout_s or self._timeout_s)
        with (
            _as_farm_errors(self.url),
            self._client.stream("GET", path, headers=dict(headers or {}), timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
            _check(response)
            yield response

    @contextmanager
    def download(self, path: str) -> Iterator[httpx2.Response]:
        """Open a file that is read while it comes, from the object store itself if the farm sends us there."""
        with _as_farm_errors(self.url), self._client.stream("GET", path, timeout=self._timeout_s) as response:
            link = response.headers.get("Location", "") if response.status_code in _ELSEWHERE else ""
            if not link.startswith(("http://", "https://")):
                if not response.is_success:
                    response.read()
                _check(response)
                yield response
                return
        with _download_from(link, self._timeout_s) as response:
            yield response


@contextmanager
def _download_from(link: str, timeout_s: float) -> Iterator[httpx2.Response]:
    """Open a link that the farm gave us; what we tell the farm, headers and all, is not for whoever is there.

    No message repeats the link: it opens the file for everybody.
    """
    store = "the object store that the farm sends us to"
    try:
        with httpx2.stream("GET", link, timeout=timeout_s) as response:
            if not response.is_success:
                raise errors.FarmUnavailable(f"{store} answered {response.status_code} {response.reason_phrase}")
            yield response
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = _one_line(str(error)) or type(error).__name__
        raise errors.FarmUnavailable(f"{store} did not send the file: {reason}") from error


def retries() -> Iterable[stamina.Attempt]:
    """Return attempts, to be entered one after the other, at something that a farm may be too busy for just now."""
    return stamina.retry_context(
        on=errors.FarmUnavailable,
        attempts=_TRIES,
        timeout=None,
        wait_initial=_WAIT_FIRST_S,
        wait_max=_WAIT_MAX_S,
        wait_jitter=_WAIT_JITTER_S,
    )


def _without_none(arguments: dict[str, Any]) -> dict[str, Any]:
    params = arguments.get("params")
    if params is None:
        return arguments
    return {**arguments, "params": {name: value for name, value in params.items() if value is not None}}


@contextmanager
def _as_farm_errors(url: str) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise errors.InvalidInput(f"{error.object!r} holds characters that are no Unicode") from error
    except httpx2.InvalidURL as error:
        raise errors.InvalidInput(f"{url!r} is not a farm's address: {error}") from error
    except httpx2.UnsupportedProtocol as error:
        raise errors.InvalidInput(f"{url!r} is not a farm's address: it must begin with http:// or https://") from error
    except httpx2.TimeoutException as error:
        raise errors.FarmUnavailable(f"the farm at {url} does not answer in time") from error
    except httpx2.ConnectError as error:
        raise errors.FarmUnavailable(f"no farm answers at {url}") from error
    except httpx2.HTTPError as error:
        raise errors.FarmUnavailable(f"the connection to the farm at {url} broke: {_one_line(str(error))}") from error


def _classes(root: type[errors.RenderfarmError]) -> Iterator[type[errors.RenderfarmError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


def _check(response: httpx2.Response) -> None:
    """Raise what a problem body tells of."""
    if response.is_success:
        return
    status = response.status_code
    try:
        problem = response.json()
        code, detail = str(problem["code"]), _one_line(str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        raise _of_another(response) from None
    known = {kind.code: kind for kind in _classes(errors.RenderfarmError) if kind is not errors.RenderfarmError}
    raise known.get(code, _by_status(status))(detail)


def _of_another(response: httpx2.Response) -> errors.RenderfarmError:
    """Return what an answer means that is not in the farm's own words: a proxy's, or another program's.

    Ray Serve answers 404 until it knows the farm's routes.
    """
    status = response.status_code
    said = f"{response.request.url} answered {status} {response.reason_phrase}"
    if status == HTTPStatus.NOT_FOUND or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.FarmUnavailable(f"{said}: no farm is there, or it is not up yet")
    return _by_status(status)(said)


def _by_status(status: int) -> type[errors.RenderfarmError]:
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        return errors.FarmUnavailable
    special: dict[int, type[errors.RenderfarmError]] = {
        HTTPStatus.NOT_FOUND: errors.NotFound,
        HTTPStatus.FORBIDDEN: errors.Forbidden,
        HTTPStatus.CONFLICT: errors.Conflict,
        HTTPStatus.INSUFFICIENT_STORAGE: errors.StorageFull,
    }
    return special.get(status, errors.InvalidInput if status < 500 else errors.RenderfarmError)


def _one_line(text: str) -> str:
    return " ".join(text.split())
