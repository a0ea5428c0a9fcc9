"""Throw requests at a server: schemathesis makes them of its OpenAPI document, and all answers are to be as it says.

Run ``python -m fuzz.apis --minutes 10``; ``make fuzz`` runs it too. What breaks something is printed as a call of
curl, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

# A schema cannot say all that makes an item: that an image is a data URI, or a request has one item at least.
_CHECKS = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    serve = "from st_modules.cli import app; app()"
    command = [sys.executable, "-c", serve, "serve", "--model", arguments.model, "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "ST_MODULES_API_KEY"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout
            found = re.search(r"on (http://[^;]+);", server.stdout.readline())
            assert found, "the server does not start"
            fuzz = [sys.executable, "-m", "schemathesis.cli", "fuzz", f"{found.group(1)}/openapi.json", *_CHECKS]
            fuzz += ["--max-time", str(max(1, round(60 * arguments.minutes))), "--continue-on-failure", "--no-color"]
            return subprocess.run(fuzz, check=False).returncode
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
