"""Who may call a coordinator: tokens, and devices that come and go."""

from collections.abc import Sequence
from urllib.parse import quote

from shoal.wire.http import Connection
from shoal.wire.messages import ApproveRequest, DeviceStatus, ReleaseRequest, TokenRequest, TokenStatus


class Access:
    """Lets people and devices in, and out, in the role that the connection's token gives (docs/security.md)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, asked: TokenRequest) -> TokenStatus:
        """Make a token; it can be read in this answer only. Raises Forbidden for a role out of reach."""
        return self._connection.call("POST", "/v1/tokens", asked, TokenStatus)

    def tokens(self) -> list[TokenStatus]:
        """List tokens without themselves, oldest first."""
        return self._connection.call("GET", "/v1/tokens", None, list[TokenStatus])

    def revoke_token(self, token: str) -> TokenStatus:
        """Take a token back, by its id, at once. Raises NotFound."""
        return self._connection.call("DELETE", f"/v1/tokens/{quote(token)}", None, TokenStatus)

    def approve(self, name: str, *, scope: Sequence[str] = (), key: str = "") -> DeviceStatus:
        """Let a device in that waits, for tasks of these names (none for all); with `key` only the one with that id.

        Raises NotFound when none of that name waits, Conflict when it has another key.
        """
        asked = ApproveRequest(tuple(scope), key)
        return self._connection.call("POST", f"/v1/devices/{quote(name)}/approve", asked, DeviceStatus)

    def refuse(self, name: str) -> None:
        """Turn a device away that waits. Raises NotFound."""
        self._connection.call("POST", f"/v1/devices/{quote(name)}/refuse", None, ReleaseRequest)

    def revoke(self, name: str) -> DeviceStatus:
        """Let a device in no more, at once: its held calls end, its places are free. Raises NotFound."""
        return self._connection.call("POST", f"/v1/devices/{quote(name)}/revoke", None, DeviceStatus)
