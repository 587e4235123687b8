"""`shoal devices`."""

from shoal.cli.ending import reported
from shoal.cli.options import Ca, Json, Token, Url
from shoal.cli.output import moment, print_json, print_table


@reported
def devices(url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """List the devices that joined a coordinator."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.devices()
    if as_json:
        for device in found:
            print_json(device)
        return
    rows = [
        (device.name, device.id, moment(device.enrolled), moment(device.last_seen), "yes" if device.revoked else "")
        for device in found
    ]
    print_table(("name", "device", "enrolled", "last seen", "revoked"), rows)
