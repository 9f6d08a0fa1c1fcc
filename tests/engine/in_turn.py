"""One rank of several runs, one after the other: process groups are slow to start, tiny runs are not.

Arguments: a JSON list of requests.
"""

import json
import sys

from same.engine.job import Request
from same.engine.processes import leave
from same.engine.trainer import train

if __name__ == "__main__":
    for request in json.loads(sys.argv[1]):
        train(Request(**request))
    leave(0)
