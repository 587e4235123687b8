"""Write the coordinator's OpenAPI document, from which the types of messages come: python openapi.py > openapi.json"""

import json
import sys
from typing import cast

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator

if __name__ == "__main__":
    # the document follows from routes and messages alone: nothing is served
    served = cast(Coordinator, type("Nothing", (), {"metrics": None}))
    document = {**build_app(served).openapi(), "paths": {}}  # a device needs the messages, it knows the calls
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
